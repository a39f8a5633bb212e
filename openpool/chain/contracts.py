"""The functions and events of the contracts that the pool uses, exactly as they are declared."""

from openpool.chain.abi import Event, Method

UINT = "uint256"
TICKET = "(address,address,uint256,uint256,uint256,bytes32,bytes)"


class Controller:
    get_contract = Method("getContract", "bytes32", returns=("address",))
    set_contract_info = Event("SetContractInfo", "bytes32", "address", "bytes20")


class RoundsManager:
    block_num = Method("blockNum", returns=(UINT,))
    current_round = Method("currentRound", returns=(UINT,))
    current_round_initialized = Method("currentRoundInitialized", returns=("bool",))
    current_round_locked = Method("currentRoundLocked", returns=("bool",))
    current_round_start_block = Method("currentRoundStartBlock", returns=(UINT,))
    round_length = Method("roundLength", returns=(UINT,))
    block_hash_for_round = Method("blockHashForRound", UINT, returns=("bytes32",))
    initialize_round = Method("initializeRound")
    new_round = Event("NewRound", "uint256 indexed", "bytes32")


class BondingManager:
    get_transcoder = Method("getTranscoder", "address", returns=(UINT,) * 10)
    get_pool = Method("getTranscoderEarningsPoolForRound", "address", UINT, returns=(UINT,) * 5)
    get_delegator = Method(
        "getDelegator", "address", returns=(UINT, UINT, "address", UINT, UINT, UINT, UINT)
    )
    get_lock = Method("getDelegatorUnbondingLock", "address", UINT, returns=(UINT, UINT))
    delegator_status = Method("delegatorStatus", "address", returns=("uint8",))
    is_active = Method("isActiveTranscoder", "address", returns=("bool",))
    is_registered = Method("isRegisteredTranscoder", "address", returns=("bool",))
    pending_stake = Method("pendingStake", "address", UINT, returns=(UINT,))
    pending_fees = Method("pendingFees", "address", UINT, returns=(UINT,))
    total_stake = Method("transcoderTotalStake", "address", returns=(UINT,))
    pool_size = Method("getTranscoderPoolSize", returns=(UINT,))
    pool_size_max = Method("getTranscoderPoolMaxSize", returns=(UINT,))
    first = Method("getFirstTranscoderInPool", returns=("address",))
    next = Method("getNextTranscoderInPool", "address", returns=("address",))
    total_bonded = Method("getTotalBonded", returns=(UINT,))
    treasury_cut = Method("treasuryRewardCutRate", returns=(UINT,))
    unbonding_period = Method("unbondingPeriod", returns=("uint64",))
    reward_caller = Method("transcoderToRewardCaller", "address", returns=("address",))

    bond = Method("bond", UINT, "address")
    unbond = Method("unbond", UINT)
    rebond = Method("rebond", UINT)
    rebond_from_unbonded = Method("rebondFromUnbonded", "address", UINT)
    withdraw_stake = Method("withdrawStake", UINT)
    withdraw_fees = Method("withdrawFees", "address", UINT)
    claim_earnings = Method("claimEarnings", UINT)
    transfer_bond = Method(
        "transferBond", "address", UINT, "address", "address", "address", "address"
    )
    transcoder = Method("transcoder", UINT, UINT)
    reward = Method("reward")
    reward_for = Method("rewardForTranscoder", "address")
    set_reward_caller = Method("setRewardCaller", "address")

    rewarded = Event("Reward", "address indexed", UINT)
    treasury_rewarded = Event("TreasuryReward", "address indexed", "address", UINT)
    fees_withdrawn = Event("WithdrawFees", "address indexed", "address", UINT)
    unbonded = Event("Unbond", "address indexed", "address indexed", UINT, UINT, UINT)


class TicketBroker:
    fund = Method("fundDepositAndReserve", UINT, UINT)
    redeem = Method("redeemWinningTicket", TICKET, "bytes", UINT)
    sender_info = Method(
        "getSenderInfo", "address", returns=("(uint256,uint256)", "(uint256,uint256)")
    )
    claimable_reserve = Method("claimableReserve", "address", "address", returns=(UINT,))
    used_tickets = Method("usedTickets", "bytes32", returns=("bool",))
    ticket_validity_period = Method("ticketValidityPeriod", returns=(UINT,))

    transferred = Event("WinningTicketTransfer", "address indexed", "address indexed", UINT)
    redeemed = Event(
        "WinningTicketRedeemed",
        *("address indexed", "address indexed", UINT, UINT, UINT, UINT, "bytes"),
    )


class Minter:
    inflation = Method("inflation", returns=(UINT,))
    inflation_change = Method("inflationChange", returns=(UINT,))
    target_bonding_rate = Method("targetBondingRate", returns=(UINT,))
    mintable = Method("currentMintableTokens", returns=(UINT,))
    minted = Method("currentMintedTokens", returns=(UINT,))
    supply = Method("getGlobalTotalSupply", returns=(UINT,))


class Token:
    balance_of = Method("balanceOf", "address", returns=(UINT,))
    approve = Method("approve", "address", UINT, returns=("bool",))
    allowance = Method("allowance", "address", "address", returns=(UINT,))
    transfer = Method("transfer", "address", UINT, returns=("bool",))
    mint = Method("mint", "address", UINT)
    transferred = Event("Transfer", "address indexed", "address indexed", UINT)


class Multicall3:
    aggregate3 = Method("aggregate3", "(address,bool,bytes)[]", returns=("(bool,bytes)[]",))
    aggregate3_value = Method(
        "aggregate3Value", "(address,bool,uint256,bytes)[]", returns=("(bool,bytes)[]",)
    )


class PriceFeed:
    decimals = Method("decimals", returns=("uint8",))
    latest_round_data = Method(
        "latestRoundData", returns=("uint80", "int256", UINT, UINT, "uint80")
    )


class Swap:
    quote = Method(
        "quoteExactInputSingle",
        "(address,address,uint256,uint24,uint160)",
        returns=(UINT, "uint160", "uint32", UINT),
    )
    exact_input = Method(
        "exactInputSingle",
        "(address,address,uint24,address,uint256,uint256,uint160)",
        returns=(UINT,),
    )
    exact_input_dated = Method(
        "exactInputSingle",
        "(address,address,uint24,address,uint256,uint256,uint256,uint160)",
        returns=(UINT,),
    )
    multicall = Method("multicall", UINT, "bytes[]", returns=("bytes[]",))
    get_pool = Method("getPool", "address", "address", "uint24", returns=("address",))
    observe = Method("observe", "uint32[]", returns=("int56[]", "uint160[]"))
    slot0 = Method(
        "slot0", returns=("uint160", "int24", "uint16", "uint16", "uint16", "uint8", "bool")
    )
    token0 = Method("token0", returns=("address",))
    token1 = Method("token1", returns=("address",))
