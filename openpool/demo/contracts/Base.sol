// SPDX-License-Identifier: MIT
// What the other contracts here share. All of them are ours, for the demo and the tests only: they
// have the interface of the contracts they stand for, hold toy money, and are not audited.
pragma solidity ^0.8.20;

/// Whole-number arithmetic as the protocol does it: every division rounds down.
library Parts {
    uint256 internal constant PPM = 1e6;
    uint256 internal constant PPB = 1e9;
    uint256 internal constant PRECISE = 1e27;

    /// `amount * part / whole`, with the ratio rounded down to `parts` first.
    function frac(uint256 amount, uint256 part, uint256 whole, uint256 parts) internal pure returns (uint256) {
        return (amount * ((part * parts) / whole)) / parts;
    }

    function pct(uint256 amount, uint256 ratePpm) internal pure returns (uint256) {
        return (amount * ratePpm) / PPM;
    }
}

/// A contract whose settings belong to whoever deployed it.
abstract contract Owned {
    address public owner = msg.sender;

    modifier onlyOwner() {
        require(msg.sender == owner, "caller must be owner");
        _;
    }
}

/// Names to addresses; a name that was never set is the zero address.
contract Controller is Owned {
    struct Info {
        address contractAddress;
        bytes20 gitCommitHash;
    }

    mapping(bytes32 => Info) private registry;

    event SetContractInfo(bytes32 id, address contractAddress, bytes20 gitCommitHash);

    function setContractInfo(bytes32 id, address contractAddress, bytes20 gitCommitHash) external onlyOwner {
        registry[id] = Info(contractAddress, gitCommitHash);
        emit SetContractInfo(id, contractAddress, gitCommitHash);
    }

    function getContract(bytes32 id) public view returns (address) {
        return registry[id].contractAddress;
    }

    function getContractInfo(bytes32 id) external view returns (address, bytes20) {
        return (registry[id].contractAddress, registry[id].gitCommitHash);
    }
}

/// A contract that finds the others by name.
abstract contract Managed is Owned {
    Controller public controller;

    constructor(Controller controller_) {
        controller = controller_;
    }

    modifier only(string memory name) {
        require(msg.sender == find(name), string.concat("msg.sender not ", name));
        _;
    }

    function find(string memory name) internal view returns (address) {
        return controller.getContract(keccak256(bytes(name)));
    }
}

/// The least that an ERC20 token is.
contract Token is Owned {
    string public name;
    string public symbol;
    uint8 public constant decimals = 18;
    uint256 public totalSupply;
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;

    event Transfer(address indexed from, address indexed to, uint256 value);
    event Approval(address indexed owner, address indexed spender, uint256 value);

    constructor(string memory name_, string memory symbol_) {
        name = name_;
        symbol = symbol_;
    }

    function transfer(address to, uint256 value) external returns (bool) {
        move(msg.sender, to, value);
        return true;
    }

    function approve(address spender, uint256 value) external returns (bool) {
        allowance[msg.sender][spender] = value;
        emit Approval(msg.sender, spender, value);
        return true;
    }

    function transferFrom(address from, address to, uint256 value) external returns (bool) {
        require(allowance[from][msg.sender] >= value, "insufficient allowance");
        allowance[from][msg.sender] -= value;
        move(from, to, value);
        return true;
    }

    function move(address from, address to, uint256 value) internal {
        require(balanceOf[from] >= value, "transfer amount exceeds balance");
        balanceOf[from] -= value;
        balanceOf[to] += value;
        emit Transfer(from, to, value);
    }

    function create(address to, uint256 value) internal {
        totalSupply += value;
        balanceOf[to] += value;
        emit Transfer(address(0), to, value);
    }
}
