// SPDX-License-Identifier: MIT
// Rounds, the token, and the Minter that holds all staked LPT and all unclaimed ETH.
pragma solidity ^0.8.20;

import {Controller, Managed, Parts, Token} from "./Base.sol";

interface IStake {
    function setCurrentRoundTotalActiveStake() external;
    function nextRoundTotalActiveStake() external view returns (uint256);
}

contract LivepeerToken is Token {
    mapping(address => bool) public minters;

    constructor() Token("Toy Livepeer Token", "LPT") {
        minters[msg.sender] = true;
    }

    function setMinter(address minter) external onlyOwner {
        minters[minter] = true;
    }

    function mint(address to, uint256 value) external {
        require(minters[msg.sender], "caller must be a minter");
        create(to, value);
    }
}

contract RoundsManager is Managed {
    uint256 public roundLength;
    uint256 public roundLockAmount = 100_000;
    uint256 public lastInitializedRound;
    uint256 private immutable firstRound;
    uint256 private immutable firstBlock;
    mapping(uint256 => bytes32) public blockHashForRound;

    event NewRound(uint256 indexed round, bytes32 blockHash);

    constructor(Controller controller_, uint256 roundLength_, uint256 firstRound_) Managed(controller_) {
        roundLength = roundLength_;
        firstRound = firstRound_;
        firstBlock = block.number;
    }

    function initializeRound() external {
        uint256 round = currentRound();
        require(lastInitializedRound < round, "round already initialized");
        lastInitializedRound = round;
        blockHashForRound[round] = blockhash(block.number - 1);
        IStake(find("BondingManager")).setCurrentRoundTotalActiveStake();
        Minter(payable(find("Minter"))).setCurrentRewardTokens();
        emit NewRound(round, blockHashForRound[round]);
    }

    function blockNum() public view returns (uint256) {
        return block.number;
    }

    function currentRound() public view returns (uint256) {
        return firstRound + (block.number - firstBlock) / roundLength;
    }

    function currentRoundStartBlock() public view returns (uint256) {
        return firstBlock + (currentRound() - firstRound) * roundLength;
    }

    function currentRoundInitialized() public view returns (bool) {
        return lastInitializedRound == currentRound();
    }

    function currentRoundLocked() external view returns (bool) {
        uint256 lock = Parts.pct(roundLength, roundLockAmount);
        return block.number - currentRoundStartBlock() >= roundLength - lock;
    }
}

contract Minter is Managed {
    uint256 public inflation;
    uint256 public inflationChange;
    uint256 public targetBondingRate;
    uint256 public currentMintableTokens;
    uint256 public currentMintedTokens;
    uint256 public suppliedOnL1;

    event SetCurrentRewardTokens(uint256 currentMintableTokens, uint256 currentInflation);

    constructor(
        Controller controller_,
        uint256 inflation_,
        uint256 inflationChange_,
        uint256 targetBondingRate_,
        uint256 suppliedOnL1_
    ) Managed(controller_) {
        inflation = inflation_;
        inflationChange = inflationChange_;
        targetBondingRate = targetBondingRate_;
        suppliedOnL1 = suppliedOnL1_;
    }

    /// Deposits of gateways arrive by `depositETH`; plain ETH is taken too.
    receive() external payable {}

    function depositETH() external payable returns (bool) {
        return true;
    }

    function getGlobalTotalSupply() public view returns (uint256) {
        return token().totalSupply() + suppliedOnL1;
    }

    function setCurrentRewardTokens() external only("RoundsManager") {
        uint256 supply = getGlobalTotalSupply();
        uint256 rate = (IStake(find("BondingManager")).nextRoundTotalActiveStake() * Parts.PPB) / supply;
        if (rate < targetBondingRate) inflation += inflationChange;
        else if (rate > targetBondingRate) inflation -= inflation < inflationChange ? inflation : inflationChange;
        currentMintableTokens = (supply * inflation) / Parts.PPB;
        currentMintedTokens = 0;
        emit SetCurrentRewardTokens(currentMintableTokens, inflation);
    }

    function createReward(uint256 stake, uint256 activeStake) external only("BondingManager") returns (uint256) {
        uint256 minted = Parts.frac(currentMintableTokens, stake, activeStake, Parts.PPB);
        currentMintedTokens += minted;
        require(currentMintedTokens <= currentMintableTokens, "minted tokens cannot exceed mintable tokens");
        token().mint(address(this), minted);
        return minted;
    }

    function trustedTransferTokens(address to, uint256 amount) external only("BondingManager") {
        token().transfer(to, amount);
    }

    /// With the stipend of 2300 gas only: a recipient with code may fail here.
    function trustedWithdrawETH(address payable to, uint256 amount) external {
        require(
            msg.sender == find("BondingManager") || msg.sender == find("TicketBroker"),
            "msg.sender not BondingManager or TicketBroker"
        );
        to.transfer(amount);
    }

    function token() private view returns (LivepeerToken) {
        return LivepeerToken(find("LivepeerToken"));
    }
}
