"""How the pool speaks to Ethereum: JSON-RPC, contracts, signers. Moves no money by itself."""
