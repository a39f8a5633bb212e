// SPDX-License-Identifier: MIT
// Many calls in one, recipients of every kind, and a price feed.
pragma solidity ^0.8.20;

import {Owned} from "./Base.sol";

contract Multicall3 {
    struct Call3 {
        address target;
        bool allowFailure;
        bytes callData;
    }

    struct Call3Value {
        address target;
        bool allowFailure;
        uint256 value;
        bytes callData;
    }

    struct Result {
        bool success;
        bytes returnData;
    }

    function aggregate3(Call3[] calldata calls) external payable returns (Result[] memory results) {
        results = new Result[](calls.length);
        for (uint256 i = 0; i < calls.length; i++) {
            results[i] = perform(calls[i].target, 0, calls[i].callData, calls[i].allowFailure);
        }
    }

    /// What a failed call was to carry stays here, for anybody to take.
    function aggregate3Value(Call3Value[] calldata calls) external payable returns (Result[] memory results) {
        results = new Result[](calls.length);
        uint256 sum;
        for (uint256 i = 0; i < calls.length; i++) {
            sum += calls[i].value;
            results[i] = perform(calls[i].target, calls[i].value, calls[i].callData, calls[i].allowFailure);
        }
        require(msg.value == sum, "Multicall3: value mismatch");
    }

    function perform(address target, uint256 value, bytes calldata data, bool allowFailure)
        private
        returns (Result memory result)
    {
        (result.success, result.returnData) = target.call{value: value}(data);
        require(result.success || allowFailure, "Multicall3: call failed");
    }

    function getEthBalance(address who) external view returns (uint256) {
        return who.balance;
    }

    function getBlockNumber() external view returns (uint256) {
        return block.number;
    }
}

contract RefusesEther {
    receive() external payable {
        revert("no ether, please");
    }
}

contract BurnsGas {
    receive() external payable {
        while (true) {}
    }
}

/// A wallet with code; it needs more gas than the stipend of a plain `transfer`.
contract AcceptsEther {
    uint256 public received;

    receive() external payable {
        received += msg.value;
    }
}

/// The interface of a Chainlink price feed.
contract PriceFeed is Owned {
    uint8 public constant decimals = 8;
    string public constant description = "ETH / USD";
    int256 private price;
    uint256 private updated;
    uint80 private round;

    constructor(int256 price_) {
        (price, updated, round) = (price_, block.timestamp, 1);
    }

    function set(int256 price_, uint256 updated_) external onlyOwner {
        (price, updated, round) = (price_, updated_, round + 1);
    }

    function latestRoundData() external view returns (uint80, int256, uint256, uint256, uint80) {
        return (round, price, updated, updated, round);
    }
}
