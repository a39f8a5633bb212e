// SPDX-License-Identifier: MIT
// Deposits and reserves of gateways, and the redemption of their winning tickets.
pragma solidity ^0.8.20;

import {Controller, Managed} from "./Base.sol";
import {BondingManager} from "./BondingManager.sol";
import {Minter, RoundsManager} from "./Rounds.sol";

contract TicketBroker is Managed {
    uint256 private constant HALF_ORDER = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0;

    struct Ticket {
        address recipient;
        address sender;
        uint256 faceValue;
        uint256 winProb;
        uint256 senderNonce;
        bytes32 recipientRandHash;
        bytes auxData;
    }

    struct Sender {
        uint256 deposit;
        uint256 withdrawRound;
    }

    struct ReserveInfo {
        uint256 fundsRemaining;
        uint256 claimedInCurrentRound;
    }

    uint256 public unlockPeriod = 2;
    uint256 public ticketValidityPeriod = 2;
    mapping(bytes32 => bool) public usedTickets;
    mapping(address => Sender) private senders;
    mapping(address => uint256) private reserves;
    mapping(address => mapping(uint256 => uint256)) private claimedInRound;
    mapping(address => mapping(uint256 => mapping(address => uint256))) private claimedBy;

    event DepositFunded(address indexed sender, uint256 amount);
    event ReserveFunded(address indexed reserveHolder, uint256 amount);
    event ReserveClaimed(address indexed reserveHolder, address claimant, uint256 amount);
    event Unlock(address indexed sender, uint256 startRound, uint256 endRound);
    event UnlockCancelled(address indexed sender);
    event Withdrawal(address indexed sender, uint256 deposit, uint256 reserve);
    event WinningTicketTransfer(address indexed sender, address indexed recipient, uint256 amount);
    event WinningTicketRedeemed(
        address indexed sender,
        address indexed recipient,
        uint256 faceValue,
        uint256 winProb,
        uint256 senderNonce,
        uint256 recipientRand,
        bytes auxData
    );

    constructor(Controller controller_) Managed(controller_) {}

    modifier initialized() {
        require(rounds().currentRoundInitialized(), "current round is not initialized");
        _;
    }

    // ---- money of gateways ----------------------------------------------------------------------

    function fundDeposit() external payable {
        fund(msg.sender, msg.value, 0);
    }

    function fundReserve() external payable {
        fund(msg.sender, 0, msg.value);
    }

    function fundDepositAndReserve(uint256 deposit, uint256 reserve) external payable {
        fund(msg.sender, deposit, reserve);
    }

    function fundDepositAndReserveFor(address who, uint256 deposit, uint256 reserve) external payable {
        fund(who, deposit, reserve);
    }

    function fund(address who, uint256 deposit, uint256 reserve) private {
        require(msg.value == deposit + reserve, "msg.value does not equal sum of deposit amount and reserve amount");
        minter().depositETH{value: msg.value}();
        senders[who].withdrawRound = 0;
        if (deposit > 0) {
            senders[who].deposit += deposit;
            emit DepositFunded(who, deposit);
        }
        if (reserve > 0) {
            reserves[who] += reserve;
            emit ReserveFunded(who, reserve);
        }
    }

    function unlock() external {
        require(senders[msg.sender].deposit > 0 || reserves[msg.sender] > 0, "sender deposit and reserve are zero");
        require(!isUnlockInProgress(msg.sender), "unlock already initiated");
        uint256 round = rounds().currentRound();
        senders[msg.sender].withdrawRound = round + unlockPeriod;
        emit Unlock(msg.sender, round, round + unlockPeriod);
    }

    function cancelUnlock() external {
        require(isUnlockInProgress(msg.sender), "no unlock request in progress");
        senders[msg.sender].withdrawRound = 0;
        emit UnlockCancelled(msg.sender);
    }

    function withdraw() external {
        uint256 deposit = senders[msg.sender].deposit;
        uint256 reserve = reserves[msg.sender];
        require(deposit > 0 || reserve > 0, "sender deposit and reserve are zero");
        require(isUnlockInProgress(msg.sender), "no unlock request in progress");
        require(rounds().currentRound() >= senders[msg.sender].withdrawRound, "account is locked");
        delete senders[msg.sender];
        delete reserves[msg.sender];
        minter().trustedWithdrawETH(payable(msg.sender), deposit + reserve);
        emit Withdrawal(msg.sender, deposit, reserve);
    }

    // ---- redemption -----------------------------------------------------------------------------

    function redeemWinningTicket(Ticket calldata ticket, bytes calldata sig, uint256 recipientRand)
        public
        initialized
    {
        bytes32 hash = getTicketHash(ticket);
        check(ticket, hash, sig, recipientRand);
        Sender storage sender = senders[ticket.sender];
        require(!isUnlocked(ticket.sender), "sender is unlocked");
        require(
            sender.deposit + reserves[ticket.sender] >= ticket.faceValue && ticket.faceValue > 0,
            "sender deposit and reserve do not cover the face value"
        );
        usedTickets[hash] = true;
        uint256 paid = pay(ticket);
        if (paid > 0) {
            uint256 round = uint256(bytes32(ticket.auxData[:32]));
            bonding().updateTranscoderWithFees(ticket.recipient, paid, round);
            emit WinningTicketTransfer(ticket.sender, ticket.recipient, paid);
        }
        emit WinningTicketRedeemed(
            ticket.sender,
            ticket.recipient,
            ticket.faceValue,
            ticket.winProb,
            ticket.senderNonce,
            recipientRand,
            ticket.auxData
        );
    }

    /// A ticket that fails is left out, and nobody is told.
    function batchRedeemWinningTickets(
        Ticket[] calldata tickets,
        bytes[] calldata sigs,
        uint256[] calldata recipientRands
    ) external initialized {
        for (uint256 i = 0; i < tickets.length; i++) {
            try this.redeemWinningTicket(tickets[i], sigs[i], recipientRands[i]) {} catch {}
        }
    }

    function pay(Ticket calldata ticket) private returns (uint256 paid) {
        Sender storage sender = senders[ticket.sender];
        paid = ticket.faceValue < sender.deposit ? ticket.faceValue : sender.deposit;
        sender.deposit -= paid;
        uint256 missing = ticket.faceValue - paid;
        if (missing > 0) paid += claimReserve(ticket.sender, ticket.recipient, missing);
    }

    function claimReserve(address holder, address claimant, uint256 wanted) private returns (uint256 amount) {
        uint256 most = claimableReserve(holder, claimant);
        amount = wanted < most ? wanted : most;
        if (amount == 0) return 0;
        uint256 round = rounds().currentRound();
        reserves[holder] -= amount;
        claimedInRound[holder][round] += amount;
        claimedBy[holder][round][claimant] += amount;
        emit ReserveClaimed(holder, claimant, amount);
    }

    function check(Ticket calldata ticket, bytes32 hash, bytes calldata sig, uint256 recipientRand) private view {
        require(ticket.recipient != address(0), "ticket recipient is null address");
        require(ticket.sender != address(0), "ticket sender is null address");
        checkRound(ticket.auxData);
        require(
            keccak256(abi.encodePacked(recipientRand)) == ticket.recipientRandHash,
            "recipientRand does not match recipientRandHash"
        );
        require(!usedTickets[hash], "ticket is used");
        require(signerOf(hash, sig) == ticket.sender, "invalid signature over ticket hash");
        require(uint256(keccak256(abi.encodePacked(sig, recipientRand))) < ticket.winProb, "ticket did not win");
    }

    function checkRound(bytes calldata auxData) private view {
        require(auxData.length == 64, "invalid length for ticket auxData: must be 64 bytes");
        (uint256 round, bytes32 blockHash) = abi.decode(auxData, (uint256, bytes32));
        bytes32 known = rounds().blockHashForRound(round);
        require(known != 0, "ticket creationRound does not have a block hash");
        require(known == blockHash, "ticket creationRoundBlockHash invalid for creationRound");
        require(round + ticketValidityPeriod > rounds().currentRound(), "ticket is expired");
    }

    function signerOf(bytes32 hash, bytes calldata sig) private pure returns (address) {
        require(sig.length == 65, "invalid signature length");
        uint256 s = uint256(bytes32(sig[32:64]));
        require(s <= HALF_ORDER, "invalid signature 's' value");
        bytes32 signed = keccak256(abi.encodePacked("\x19Ethereum Signed Message:\n32", hash));
        address signer = ecrecover(signed, uint8(sig[64]), bytes32(sig[:32]), bytes32(s));
        require(signer != address(0), "invalid signature");
        return signer;
    }

    // ---- reads ----------------------------------------------------------------------------------

    function getTicketHash(Ticket calldata ticket) public pure returns (bytes32) {
        return keccak256(
            abi.encodePacked(
                ticket.recipient,
                ticket.sender,
                ticket.faceValue,
                ticket.winProb,
                ticket.senderNonce,
                ticket.recipientRandHash,
                ticket.auxData
            )
        );
    }

    function getSenderInfo(address who) external view returns (Sender memory sender, ReserveInfo memory reserve) {
        return (senders[who], getReserveInfo(who));
    }

    function getReserveInfo(address who) public view returns (ReserveInfo memory info) {
        return ReserveInfo(reserves[who], claimedInRound[who][rounds().currentRound()]);
    }

    function claimedReserve(address holder, address claimant) public view returns (uint256) {
        return claimedBy[holder][rounds().currentRound()][claimant];
    }

    /// An equal share of the reserve as it was at the start of the round, less what was claimed.
    function claimableReserve(address holder, address claimant) public view returns (uint256) {
        uint256 size = bonding().getTranscoderPoolSize();
        if (size == 0 || !bonding().isActiveTranscoder(claimant)) return 0;
        uint256 share = (reserves[holder] + claimedInRound[holder][rounds().currentRound()]) / size;
        uint256 claimed = claimedReserve(holder, claimant);
        return claimed < share ? share - claimed : 0;
    }

    function isUnlockInProgress(address who) public view returns (bool) {
        return senders[who].withdrawRound > 0;
    }

    function isUnlocked(address who) private view returns (bool) {
        return isUnlockInProgress(who) && rounds().currentRound() >= senders[who].withdrawRound;
    }

    function rounds() private view returns (RoundsManager) {
        return RoundsManager(find("RoundsManager"));
    }

    function bonding() private view returns (BondingManager) {
        return BondingManager(find("BondingManager"));
    }

    function minter() private view returns (Minter) {
        return Minter(payable(find("Minter")));
    }
}
