// SPDX-License-Identifier: MIT
// Stake, rewards and fees, by the formulas of the protocol as they are since 2026.
pragma solidity ^0.8.20;

import {Controller, Managed, Parts} from "./Base.sol";
import {LivepeerToken, Minter, RoundsManager} from "./Rounds.sol";

contract BondingManager is Managed {
    using Parts for uint256;

    uint256 private constant FOREVER = type(uint256).max;

    enum DelegatorStatus { Pending, Bonded, Unbonded }
    enum TranscoderStatus { NotRegistered, Registered }

    struct Pool {
        uint256 totalStake;
        uint256 rewardCut;
        uint256 feeShare;
        uint256 rewardFactor;
        uint256 feeFactor;
    }

    struct Transcoder {
        uint256 lastRewardRound;
        uint256 rewardCut;
        uint256 feeShare;
        uint256 lastStakeRound;
        uint256 activationRound;
        uint256 deactivationRound;
        uint256 activeRewards;
        uint256 rewards;
        uint256 fees;
        uint256 lastFeeRound;
        mapping(uint256 => Pool) pools;
    }

    struct Lock {
        uint256 amount;
        uint256 withdrawRound;
    }

    struct Delegator {
        uint256 bonded;
        uint256 fees;
        address delegate;
        uint256 delegated;
        uint256 startRound;
        uint256 lastClaimRound;
        uint256 nextLock;
        mapping(uint256 => Lock) locks;
    }

    uint64 public unbondingPeriod;
    uint256 public treasuryRewardCutRate;
    uint256 public nextRoundTreasuryRewardCutRate;
    uint256 public treasuryBalanceCeiling;
    uint256 public currentRoundTotalActiveStake;
    uint256 public nextRoundTotalActiveStake;
    mapping(address => address) public transcoderToRewardCaller;

    uint256 private poolMaxSize;
    address[] private set; // of the next round, the largest stake first
    mapping(address => Transcoder) private transcoders;
    mapping(address => Delegator) private delegators;

    event Bond(
        address indexed newDelegate,
        address indexed oldDelegate,
        address indexed delegator,
        uint256 additionalAmount,
        uint256 bondedAmount
    );
    event EarningsClaimed(
        address indexed delegate,
        address indexed delegator,
        uint256 rewards,
        uint256 fees,
        uint256 startRound,
        uint256 endRound
    );
    event Rebond(address indexed delegate, address indexed delegator, uint256 unbondingLockId, uint256 amount);
    event Reward(address indexed transcoder, uint256 amount);
    event RewardCallerSet(address indexed transcoder, address indexed rewardCaller);
    event TranscoderActivated(address indexed transcoder, uint256 activationRound);
    event TranscoderDeactivated(address indexed transcoder, uint256 deactivationRound);
    event TranscoderUpdate(address indexed transcoder, uint256 rewardCut, uint256 feeShare);
    event TransferBond(
        address indexed oldDelegator,
        address indexed newDelegator,
        uint256 oldUnbondingLockId,
        uint256 newUnbondingLockId,
        uint256 amount
    );
    event TreasuryReward(address indexed transcoder, address treasury, uint256 amount);
    event Unbond(
        address indexed delegate,
        address indexed delegator,
        uint256 unbondingLockId,
        uint256 amount,
        uint256 withdrawRound
    );
    event WithdrawFees(address indexed delegator, address recipient, uint256 amount);
    event WithdrawStake(address indexed delegator, uint256 unbondingLockId, uint256 amount, uint256 withdrawRound);

    constructor(Controller controller_, uint64 unbondingPeriod_, uint256 poolMaxSize_) Managed(controller_) {
        unbondingPeriod = unbondingPeriod_;
        poolMaxSize = poolMaxSize_;
    }

    modifier initialized() {
        require(rounds().currentRoundInitialized(), "current round is not initialized");
        _;
    }

    modifier claiming() {
        claimFor(msg.sender);
        _;
    }

    // ---- settings of governance -----------------------------------------------------------------

    function setUnbondingPeriod(uint64 value) external onlyOwner {
        unbondingPeriod = value;
    }

    function setTreasuryRewardCutRate(uint256 value) external onlyOwner {
        nextRoundTreasuryRewardCutRate = value;
    }

    function setTreasuryBalanceCeiling(uint256 value) external onlyOwner {
        treasuryBalanceCeiling = value;
    }

    function setNumActiveTranscoders(uint256 value) external onlyOwner {
        poolMaxSize = value;
    }

    function setCurrentRoundTotalActiveStake() external only("RoundsManager") {
        currentRoundTotalActiveStake = nextRoundTotalActiveStake;
        treasuryRewardCutRate = nextRoundTreasuryRewardCutRate;
    }

    // ---- stake ----------------------------------------------------------------------------------

    function bond(uint256 amount, address to) external {
        bondWithHint(amount, to, address(0), address(0), address(0), address(0));
    }

    function bondWithHint(uint256 amount, address to, address, address, address, address)
        public
        initialized
        claiming
    {
        Delegator storage d = delegators[msg.sender];
        address old = d.delegate;
        uint256 moved = amount;
        if (d.bonded == 0) {
            d.startRound = currentRound() + 1;
        } else if (old != to) {
            require(!isRegisteredTranscoder(msg.sender), "registered transcoders can't delegate towards other addresses");
            d.startRound = currentRound() + 1;
            moved += d.bonded;
            decreaseStake(old, d.bonded);
        }
        require(moved > 0, "delegation amount must be greater than 0");
        joinDelegate(d, to);
        d.bonded += amount;
        increaseStake(to, moved);
        if (amount > 0) token().transferFrom(msg.sender, find("Minter"), amount);
        emit Bond(to, old, msg.sender, amount, d.bonded);
    }

    function unbond(uint256 amount) external {
        unbondWithHint(amount, address(0), address(0));
    }

    function unbondWithHint(uint256 amount, address, address) public initialized claiming {
        require(delegatorStatus(msg.sender) == DelegatorStatus.Bonded, "caller must be bonded");
        Delegator storage d = delegators[msg.sender];
        require(amount > 0, "unbond amount must be greater than 0");
        require(amount <= d.bonded, "amount is greater than bonded amount");
        address delegate = d.delegate;
        uint256 id = d.nextLock++;
        d.locks[id] = Lock(amount, currentRound() + unbondingPeriod);
        d.bonded -= amount;
        if (d.bonded == 0) {
            d.delegate = address(0);
            d.startRound = 0;
            if (isInSet(msg.sender)) resign(msg.sender);
        }
        decreaseStake(delegate, amount);
        emit Unbond(delegate, msg.sender, id, amount, d.locks[id].withdrawRound);
    }

    function rebond(uint256 id) external {
        rebondWithHint(id, address(0), address(0));
    }

    function rebondWithHint(uint256 id, address, address) public initialized claiming {
        require(delegatorStatus(msg.sender) != DelegatorStatus.Unbonded, "caller must be bonded");
        lockToBond(msg.sender, id);
    }

    function rebondFromUnbonded(address to, uint256 id) external {
        rebondFromUnbondedWithHint(to, id, address(0), address(0));
    }

    function rebondFromUnbondedWithHint(address to, uint256 id, address, address) public initialized claiming {
        require(delegatorStatus(msg.sender) == DelegatorStatus.Unbonded, "caller must be unbonded");
        delegators[msg.sender].startRound = currentRound() + 1;
        joinDelegate(delegators[msg.sender], to);
        lockToBond(msg.sender, id);
    }

    function withdrawStake(uint256 id) external initialized {
        Lock memory lock = delegators[msg.sender].locks[id];
        require(lock.withdrawRound > 0, "invalid unbonding lock ID");
        require(lock.withdrawRound <= currentRound(), "withdraw round must be before or equal to the current round");
        delete delegators[msg.sender].locks[id];
        minter().trustedTransferTokens(msg.sender, lock.amount);
        emit WithdrawStake(msg.sender, id, lock.amount, lock.withdrawRound);
    }

    function withdrawFees(address payable recipient, uint256 amount) external initialized claiming {
        require(recipient != address(0), "invalid recipient");
        require(delegators[msg.sender].fees >= amount, "insufficient fees to withdraw");
        delegators[msg.sender].fees -= amount;
        minter().trustedWithdrawETH(recipient, amount);
        emit WithdrawFees(msg.sender, recipient, amount);
    }

    function claimEarnings(uint256) external initialized claiming {}

    /// Stake to another owner, by way of a lock that is bonded again at once.
    function transferBond(address to, uint256 amount, address, address, address, address) external {
        address delegate = delegators[msg.sender].delegate;
        uint256 id = delegators[msg.sender].nextLock;
        unbondWithHint(amount, address(0), address(0));
        Delegator storage heir = delegators[to];
        if (heir.bonded > 0 && heir.lastClaimRound < currentRound() && isActiveTranscoder(heir.delegate)) {
            require(transcoders[heir.delegate].lastRewardRound == currentRound(), "ILLEGAL_CLAIM_EARNINGS");
        }
        claimFor(to);
        uint256 newId = heir.nextLock++;
        heir.locks[newId] = delegators[msg.sender].locks[id];
        delete delegators[msg.sender].locks[id];
        emit TransferBond(msg.sender, to, id, newId, amount);
        if (heir.bonded == 0) {
            heir.startRound = currentRound() + 1;
            if (heir.delegate == address(0)) joinDelegate(heir, delegate);
        }
        lockToBond(to, newId);
    }

    // ---- orchestrators --------------------------------------------------------------------------

    function transcoder(uint256 rewardCut, uint256 feeShare) external {
        transcoderWithHint(rewardCut, feeShare, address(0), address(0));
    }

    function transcoderWithHint(uint256 rewardCut, uint256 feeShare, address, address) public initialized {
        require(!rounds().currentRoundLocked(), "can't update transcoder params, current round is locked");
        require(isRegisteredTranscoder(msg.sender), "transcoder must be registered");
        require(rewardCut <= Parts.PPM && feeShare <= Parts.PPM, "invalid percentage");
        Transcoder storage t = transcoders[msg.sender];
        require(
            !isActiveTranscoder(msg.sender) || t.lastRewardRound == currentRound(),
            "caller can't be active or must have already called reward for the current round"
        );
        t.rewardCut = rewardCut;
        t.feeShare = feeShare;
        if (!isInSet(msg.sender)) join(msg.sender, delegators[msg.sender].delegated);
        emit TranscoderUpdate(msg.sender, rewardCut, feeShare);
    }

    function setRewardCaller(address caller) external {
        transcoderToRewardCaller[msg.sender] = caller;
        emit RewardCallerSet(msg.sender, caller);
    }

    function reward() external {
        rewardOf(msg.sender);
    }

    function rewardWithHint(address, address) external {
        rewardOf(msg.sender);
    }

    function rewardForTranscoder(address who) external {
        rewardForTranscoderWithHint(who, address(0), address(0));
    }

    function rewardForTranscoderWithHint(address who, address, address) public {
        require(transcoderToRewardCaller[who] == msg.sender, "caller must be the reward caller");
        rewardOf(who);
    }

    function rewardOf(address who) private initialized {
        uint256 round = currentRound();
        Transcoder storage t = transcoders[who];
        require(isActiveTranscoder(who), "caller must be an active transcoder");
        require(t.lastRewardRound != round, "caller has already called reward for the current round");
        Pool storage pool = lockIn(t, round);
        stopTreasuryIfFull();
        uint256 minted = minter().createReward(pool.totalStake, currentRoundTotalActiveStake);
        uint256 treasury = (minted * treasuryRewardCutRate) / Parts.PRECISE;
        if (treasury > 0) {
            minter().trustedTransferTokens(find("Treasury"), treasury);
            emit TreasuryReward(who, find("Treasury"), treasury);
        }
        addRewards(t, pool, minted - treasury, round);
        increaseStake(who, minted - treasury);
        emit Reward(who, minted - treasury);
    }

    function addRewards(Transcoder storage t, Pool storage pool, uint256 amount, uint256 round) private {
        uint256 commission = amount.pct(pool.rewardCut);
        uint256 others = amount - commission;
        t.activeRewards = t.rewards;
        t.rewards += others.frac(t.activeRewards, pool.totalStake, Parts.PRECISE) + commission;
        uint256 before = orOne(t.pools[t.lastRewardRound].rewardFactor);
        pool.rewardFactor = before + before.frac(others, pool.totalStake, Parts.PRECISE);
        t.lastRewardRound = round;
    }

    function stopTreasuryIfFull() private {
        if (treasuryBalanceCeiling > 0 && token().balanceOf(find("Treasury")) >= treasuryBalanceCeiling) {
            nextRoundTreasuryRewardCutRate = 0;
        }
    }

    function updateTranscoderWithFees(address who, uint256 fees, uint256) external initialized only("TicketBroker") {
        require(isActiveTranscoder(who), "transcoder must be active");
        uint256 round = currentRound();
        Transcoder storage t = transcoders[who];
        (uint256 rewardBefore, uint256 feeBefore) = latestFactors(t, round - 1);
        bool rewarded = t.lastRewardRound >= round;
        Pool storage pool = rewarded ? t.pools[round] : lockIn(t, round);
        if (rewardBefore == 0 && t.lastRewardRound == round) rewardBefore = retroactive(pool);
        uint256 others = fees.pct(pool.feeShare);
        uint256 own = others.frac(rewarded ? t.activeRewards : t.rewards, pool.totalStake, Parts.PRECISE);
        t.fees += own + fees - others;
        uint256 factor = pool.feeFactor == 0 ? feeBefore : pool.feeFactor;
        pool.feeFactor = factor + orOne(rewardBefore).frac(others, pool.totalStake, Parts.PRECISE);
        t.lastFeeRound = round;
    }

    /// The factor before this round's reward where that of the round before is not known.
    function retroactive(Pool storage pool) private view returns (uint256) {
        uint256 mintable = minter().currentMintableTokens();
        uint256 rewards = mintable.frac(pool.totalStake, currentRoundTotalActiveStake, Parts.PRECISE);
        rewards -= (rewards * treasuryRewardCutRate) / Parts.PRECISE;
        uint256 others = rewards - rewards.pct(pool.rewardCut);
        return pool.rewardFactor.frac(pool.totalStake, others + pool.totalStake, Parts.PRECISE);
    }

    function lockIn(Transcoder storage t, uint256 round) private returns (Pool storage pool) {
        pool = t.pools[round];
        pool.rewardCut = t.rewardCut;
        pool.feeShare = t.feeShare;
        if (t.lastStakeRound < round) pool.totalStake = t.pools[t.lastStakeRound].totalStake;
    }

    // ---- earnings -------------------------------------------------------------------------------

    function claimFor(address who) private {
        Delegator storage d = delegators[who];
        uint256 round = currentRound();
        if (d.lastClaimRound >= round) return;
        if (d.delegate != address(0)) {
            (uint256 stake, uint256 fees) = earnings(who, d);
            emit EarningsClaimed(d.delegate, who, stake - d.bonded, fees - d.fees, d.lastClaimRound + 1, round);
            writeFactors(d.delegate);
            if (d.delegate == who) {
                transcoders[who].rewards = 0;
                transcoders[who].fees = 0;
            }
            d.bonded = stake;
            d.fees = fees;
        }
        d.lastClaimRound = round;
    }

    function earnings(address who, Delegator storage d) private view returns (uint256 stake, uint256 fees) {
        (stake, fees) = (d.bonded, d.fees);
        if (d.delegate == address(0)) return (stake, fees);
        Transcoder storage t = transcoders[d.delegate];
        if (d.lastClaimRound < currentRound()) {
            Pool storage start = t.pools[d.lastClaimRound];
            (uint256 rewardFactor, uint256 feeFactor) = latestFactors(t, currentRound());
            uint256 base = orOne(start.rewardFactor);
            fees += stake.frac(feeFactor - start.feeFactor, base, Parts.PRECISE);
            stake = stake.frac(orOne(rewardFactor), base, Parts.PRECISE);
        }
        if (d.delegate == who) {
            stake += t.rewards;
            fees += t.fees;
        }
    }

    function latestFactors(Transcoder storage t, uint256 round)
        private
        view
        returns (uint256 rewardFactor, uint256 feeFactor)
    {
        rewardFactor = t.pools[round].rewardFactor;
        feeFactor = t.pools[round].feeFactor;
        if (rewardFactor == 0 && t.lastRewardRound < round) rewardFactor = t.pools[t.lastRewardRound].rewardFactor;
        if (feeFactor == 0 && t.lastFeeRound < round) feeFactor = t.pools[t.lastFeeRound].feeFactor;
    }

    function writeFactors(address who) private {
        Transcoder storage t = transcoders[who];
        Pool storage pool = t.pools[currentRound()];
        (pool.rewardFactor, pool.feeFactor) = latestFactors(t, currentRound());
    }

    function orOne(uint256 factor) private pure returns (uint256) {
        return factor == 0 ? Parts.PRECISE : factor;
    }

    // ---- the set of the next round --------------------------------------------------------------

    function joinDelegate(Delegator storage d, address to) private {
        require(
            isInSet(to) || !isActiveTranscoder(to) || transcoders[to].lastRewardRound == currentRound(),
            "delegate must have called reward for the current round"
        );
        writeFactors(to);
        d.delegate = to;
    }

    function lockToBond(address who, uint256 id) private {
        Delegator storage d = delegators[who];
        uint256 amount = d.locks[id].amount;
        require(d.locks[id].withdrawRound > 0, "invalid unbonding lock ID");
        delete d.locks[id];
        d.bonded += amount;
        increaseStake(d.delegate, amount);
        emit Rebond(d.delegate, who, id, amount);
    }

    function increaseStake(address who, uint256 amount) private {
        uint256 old = delegators[who].delegated;
        if (isInSet(who)) {
            snapshot(who, old, old + amount);
            nextRoundTotalActiveStake += amount;
        } else if (isRegisteredTranscoder(who)) {
            bool joined = join(who, old + amount);
            if (!joined && isActiveTranscoder(who)) snapshot(who, old, old + amount);
        }
        delegators[who].delegated = old + amount;
        sort();
    }

    function decreaseStake(address who, uint256 amount) private {
        uint256 old = delegators[who].delegated;
        if (isInSet(who)) {
            snapshot(who, old, old - amount);
            nextRoundTotalActiveStake -= amount;
        }
        delegators[who].delegated = old - amount;
        sort();
    }

    function snapshot(address who, uint256 old, uint256 stake) private {
        Transcoder storage t = transcoders[who];
        uint256 round = currentRound();
        if (t.lastStakeRound < round) t.pools[round].totalStake = old;
        t.pools[round + 1].totalStake = stake;
        t.lastStakeRound = round + 1;
    }

    function join(address who, uint256 stake) private returns (bool) {
        uint256 starts = currentRound() + 1;
        if (set.length >= poolMaxSize) {
            address last = set[set.length - 1];
            if (stake <= delegators[last].delegated) return false;
            leave(last, starts);
        }
        set.push(who);
        nextRoundTotalActiveStake += stake;
        Transcoder storage t = transcoders[who];
        t.pools[starts].totalStake = stake;
        t.lastStakeRound = starts;
        t.activationRound = starts;
        t.deactivationRound = FOREVER;
        emit TranscoderActivated(who, starts);
        return true;
    }

    function resign(address who) private {
        leave(who, currentRound() + 1);
    }

    function leave(address who, uint256 round) private {
        for (uint256 i = 0; i < set.length; i++) {
            if (set[i] != who) continue;
            for (; i + 1 < set.length; i++) set[i] = set[i + 1];
            set.pop();
        }
        nextRoundTotalActiveStake -= delegators[who].delegated;
        transcoders[who].deactivationRound = round;
        emit TranscoderDeactivated(who, round);
    }

    function sort() private {
        for (uint256 i = 1; i < set.length; i++) {
            for (uint256 j = i; j > 0 && delegators[set[j]].delegated > delegators[set[j - 1]].delegated; j--) {
                (set[j], set[j - 1]) = (set[j - 1], set[j]);
            }
        }
    }

    function isInSet(address who) private view returns (bool) {
        for (uint256 i = 0; i < set.length; i++) if (set[i] == who) return true;
        return false;
    }

    // ---- reads ----------------------------------------------------------------------------------

    function pendingStake(address who, uint256) external view returns (uint256 stake) {
        (stake,) = earnings(who, delegators[who]);
    }

    function pendingFees(address who, uint256) external view returns (uint256 fees) {
        (, fees) = earnings(who, delegators[who]);
    }

    function delegatorStatus(address who) public view returns (DelegatorStatus) {
        if (delegators[who].bonded == 0) return DelegatorStatus.Unbonded;
        return delegators[who].startRound > currentRound() ? DelegatorStatus.Pending : DelegatorStatus.Bonded;
    }

    function transcoderStatus(address who) external view returns (TranscoderStatus) {
        return isRegisteredTranscoder(who) ? TranscoderStatus.Registered : TranscoderStatus.NotRegistered;
    }

    function isActiveTranscoder(address who) public view returns (bool) {
        return transcoders[who].activationRound <= currentRound() && currentRound() < transcoders[who].deactivationRound;
    }

    function isRegisteredTranscoder(address who) public view returns (bool) {
        return delegators[who].delegate == who && delegators[who].bonded > 0;
    }

    function getTranscoder(address who)
        external
        view
        returns (
            uint256 lastRewardRound,
            uint256 rewardCut,
            uint256 feeShare,
            uint256 lastActiveStakeUpdateRound,
            uint256 activationRound,
            uint256 deactivationRound,
            uint256 activeCumulativeRewards,
            uint256 cumulativeRewards,
            uint256 cumulativeFees,
            uint256 lastFeeRound
        )
    {
        Transcoder storage t = transcoders[who];
        lastRewardRound = t.lastRewardRound;
        rewardCut = t.rewardCut;
        feeShare = t.feeShare;
        lastActiveStakeUpdateRound = t.lastStakeRound;
        activationRound = t.activationRound;
        deactivationRound = t.deactivationRound;
        activeCumulativeRewards = t.activeRewards;
        cumulativeRewards = t.rewards;
        cumulativeFees = t.fees;
        lastFeeRound = t.lastFeeRound;
    }

    function getTranscoderEarningsPoolForRound(address who, uint256 round)
        external
        view
        returns (
            uint256 totalStake,
            uint256 transcoderRewardCut,
            uint256 transcoderFeeShare,
            uint256 cumulativeRewardFactor,
            uint256 cumulativeFeeFactor
        )
    {
        Pool storage pool = transcoders[who].pools[round];
        return (pool.totalStake, pool.rewardCut, pool.feeShare, pool.rewardFactor, pool.feeFactor);
    }

    function getDelegator(address who)
        external
        view
        returns (
            uint256 bondedAmount,
            uint256 fees,
            address delegateAddress,
            uint256 delegatedAmount,
            uint256 startRound,
            uint256 lastClaimRound,
            uint256 nextUnbondingLockId
        )
    {
        Delegator storage d = delegators[who];
        return (d.bonded, d.fees, d.delegate, d.delegated, d.startRound, d.lastClaimRound, d.nextLock);
    }

    function getDelegatorUnbondingLock(address who, uint256 id)
        external
        view
        returns (uint256 amount, uint256 withdrawRound)
    {
        Lock storage lock = delegators[who].locks[id];
        return (lock.amount, lock.withdrawRound);
    }

    function isValidUnbondingLock(address who, uint256 id) external view returns (bool) {
        return delegators[who].locks[id].withdrawRound > 0;
    }

    function transcoderTotalStake(address who) external view returns (uint256) {
        return delegators[who].delegated;
    }

    function getTotalBonded() external view returns (uint256) {
        return currentRoundTotalActiveStake;
    }

    function getTranscoderPoolSize() external view returns (uint256) {
        return set.length;
    }

    function getTranscoderPoolMaxSize() external view returns (uint256) {
        return poolMaxSize;
    }

    function getFirstTranscoderInPool() external view returns (address) {
        return set.length == 0 ? address(0) : set[0];
    }

    function getNextTranscoderInPool(address who) external view returns (address) {
        for (uint256 i = 0; i + 1 < set.length; i++) if (set[i] == who) return set[i + 1];
        return address(0);
    }

    function currentRound() private view returns (uint256) {
        return rounds().currentRound();
    }

    function rounds() private view returns (RoundsManager) {
        return RoundsManager(find("RoundsManager"));
    }

    function minter() private view returns (Minter) {
        return Minter(payable(find("Minter")));
    }

    function token() private view returns (LivepeerToken) {
        return LivepeerToken(find("LivepeerToken"));
    }
}
