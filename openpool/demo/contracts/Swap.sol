// SPDX-License-Identifier: MIT
// A market of LPT and wrapped ETH behind the interfaces of Uniswap V3. The price is set by its
// owner; a trade pays a fee and moves the price it gets, but leaves none behind.
pragma solidity ^0.8.20;

import {Owned, Token} from "./Base.sol";

contract WrappedEther is Token("Toy Wrapped Ether", "WETH") {
    function deposit() external payable {
        create(msg.sender, msg.value);
    }
}

contract SwapPool is Owned {
    address public immutable token0;
    address public immutable token1;
    address private immutable weth;
    Token private immutable lpt;
    uint24 public constant fee = 3000;
    uint256 public lptPerEth;
    uint256 public depth; // a trade of this much ETH gets half the price
    uint160 private sqrtPriceX96;
    int24 private tick;
    int24 private averageTick;

    constructor(address lpt_, address weth_) {
        (token0, token1) = lpt_ < weth_ ? (lpt_, weth_) : (weth_, lpt_);
        (lpt, weth) = (Token(lpt_), weth_);
    }

    function setPrice(uint256 lptPerEth_, uint256 depth_, uint160 sqrtPriceX96_, int24 tick_, int24 averageTick_)
        external
        onlyOwner
    {
        (lptPerEth, depth) = (lptPerEth_, depth_);
        (sqrtPriceX96, tick, averageTick) = (sqrtPriceX96_, tick_, averageTick_);
    }

    function quote(uint256 ethIn) public view returns (uint256) {
        uint256 net = ethIn - (ethIn * fee) / 1e6;
        return (((net * lptPerEth) / 1e18) * depth) / (depth + net);
    }

    /// The ETH has arrived already: called by the router after its transfer.
    function buy(uint256 ethIn, address to) external returns (uint256 out) {
        out = quote(ethIn);
        lpt.transfer(to, out);
    }

    function slot0() external view returns (uint160, int24, uint16, uint16, uint16, uint8, bool) {
        return (sqrtPriceX96, tick, 0, 601, 601, 0, true);
    }

    function liquidity() external pure returns (uint128) {
        return 1e21;
    }

    function observe(uint32[] calldata secondsAgos)
        external
        view
        returns (int56[] memory tickCumulatives, uint160[] memory secondsPerLiquidity)
    {
        tickCumulatives = new int56[](secondsAgos.length);
        secondsPerLiquidity = new uint160[](secondsAgos.length);
        for (uint256 i = 0; i < secondsAgos.length; i++) {
            tickCumulatives[i] = int56(averageTick) * int56(int256(block.timestamp) - int256(uint256(secondsAgos[i])));
        }
    }
}

contract SwapFactory is Owned {
    mapping(bytes32 => address) private pools;

    function setPool(SwapPool pool) external onlyOwner {
        pools[key(pool.token0(), pool.token1(), pool.fee())] = address(pool);
    }

    function getPool(address a, address b, uint24 fee) external view returns (address) {
        return a < b ? pools[key(a, b, fee)] : pools[key(b, a, fee)];
    }

    function key(address a, address b, uint24 fee) private pure returns (bytes32) {
        return keccak256(abi.encode(a, b, fee));
    }
}

contract SwapQuoter {
    SwapFactory public factory;

    struct QuoteExactInputSingleParams {
        address tokenIn;
        address tokenOut;
        uint256 amountIn;
        uint24 fee;
        uint160 sqrtPriceLimitX96;
    }

    constructor(SwapFactory factory_) {
        factory = factory_;
    }

    function quoteExactInputSingle(QuoteExactInputSingleParams memory params)
        external
        view
        returns (uint256 amountOut, uint160 sqrtPriceX96After, uint32 initializedTicksCrossed, uint256 gasEstimate)
    {
        SwapPool pool = SwapPool(factory.getPool(params.tokenIn, params.tokenOut, params.fee));
        (sqrtPriceX96After,,,,,,) = pool.slot0();
        return (pool.quote(params.amountIn), sqrtPriceX96After, 1, 120_000);
    }
}

/// Both routers in one: with the deadline in the struct, and with it in `multicall`.
contract SwapRouter {
    SwapFactory public factory;
    WrappedEther public WETH9;

    struct Dated {
        address tokenIn;
        address tokenOut;
        uint24 fee;
        address recipient;
        uint256 deadline;
        uint256 amountIn;
        uint256 amountOutMinimum;
        uint160 sqrtPriceLimitX96;
    }

    struct Undated {
        address tokenIn;
        address tokenOut;
        uint24 fee;
        address recipient;
        uint256 amountIn;
        uint256 amountOutMinimum;
        uint160 sqrtPriceLimitX96;
    }

    constructor(SwapFactory factory_, WrappedEther weth_) {
        (factory, WETH9) = (factory_, weth_);
    }

    modifier before(uint256 deadline) {
        require(block.timestamp <= deadline, "Transaction too old");
        _;
    }

    function exactInputSingle(Dated calldata p) external payable before(p.deadline) returns (uint256) {
        return swap(p.tokenIn, p.tokenOut, p.fee, p.recipient, p.amountIn, p.amountOutMinimum);
    }

    function exactInputSingle(Undated calldata p) external payable returns (uint256) {
        return swap(p.tokenIn, p.tokenOut, p.fee, p.recipient, p.amountIn, p.amountOutMinimum);
    }

    function multicall(uint256 deadline, bytes[] calldata data)
        external
        payable
        before(deadline)
        returns (bytes[] memory results)
    {
        results = new bytes[](data.length);
        for (uint256 i = 0; i < data.length; i++) {
            (bool ok, bytes memory result) = address(this).delegatecall(data[i]);
            if (!ok) assembly { revert(add(result, 32), mload(result)) }
            results[i] = result;
        }
    }

    function swap(address tokenIn, address tokenOut, uint24 fee, address to, uint256 amount, uint256 least)
        private
        returns (uint256 out)
    {
        SwapPool pool = SwapPool(factory.getPool(tokenIn, tokenOut, fee));
        require(tokenIn == address(WETH9) && address(this).balance >= amount, "STF");
        WETH9.deposit{value: amount}();
        WETH9.transfer(address(pool), amount);
        out = pool.buy(amount, to);
        require(out >= least, "Too little received");
    }
}
