"""What the Livepeer protocol computes on chain, computed here to the same last digit.

Pure: no chain is read here. Amounts of ETH are wei, amounts of LPT base units (10^18 to one LPT),
both `int`. Read `maths`, then `bonding`.
"""
