"""Names of the ledger's accounts. What they mean is said in `core.money.ledger`."""

COMMISSION = "commission"
IN_FLIGHT = "in-flight"
GAS = "gas"
OPERATOR = "operator"
FEES = "fees:"
CUSTOMER = "customer:"
WORKER = "worker:"
HOLDBACK = "holdback:"
ACCRUED = "accrued:"
LPT = "lpt/"
"""Before the name of an account in LPT."""

_NEGATIVE = (FEES, CUSTOMER, "claim:", "wallet:", GAS, OPERATOR)


def fees_account(payer: str) -> str:
    """The account that pays. A customer's name as payer (`core.customers`) is its account."""
    return payer if payer.startswith(CUSTOMER) else f"{FEES}{payer}"


def worker_account(address: str) -> str:
    """Addresses are taken as they are: enrolment writes them in one canonical form."""
    return f"{WORKER}{address}"


def holdback_account(address: str) -> str:
    return f"{HOLDBACK}{address}"


def accrued_account(orchestrator: str, owner: str) -> str:
    """Work not yet paid off; `owner` is a payout address, or `commission`."""
    return f"{ACCRUED}{orchestrator}:{owner}"


def claim_account(orchestrator: str) -> str:
    return f"claim:{orchestrator}"


def wallet_account(wallet: str) -> str:
    return f"wallet:{wallet}"


def in_asset(asset: str, account: str) -> str:
    """The account in this asset: `LPT` or `ETH`. Names that have their asset stay as they are."""
    return f"{LPT}{account}" if asset == "LPT" and not account.startswith(LPT) else account


def may_go_negative(account: str) -> bool:
    """Whether it stands for something that the pool has or is owed."""
    return account.removeprefix(LPT).startswith(_NEGATIVE)
