"""The web of statements, receipts, terms, disputes and corrections, over a real store."""

import asyncio
import csv
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace as with_fields
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from msgspec.structs import replace
from statement_log import BOB, KEY, START_MS, MoneyLog
from test_treasury_statements import PROMISE, PoolKey
from webpool import OPERATOR, WebPool, bearer, served, web_pool

from openpool.cli.checking import check_signature
from openpool.cli.notices import tell_of_new_terms
from openpool.core.money.documents import opened
from openpool.core.money.receipts import decode_receipt
from openpool.core.money.statement_check import check_receipts, read
from openpool.core.money.terms import differences
from openpool.treasury.corrections import Corrections
from openpool.treasury.disputes import Disputes
from openpool.treasury.statements import Statements
from openpool.treasury.terms import PublishedTerms
from openpool.web.app import create_app
from openpool.web.earnings import plain
from openpool.web.statement_interface import Proofs

NOW_MS = START_MS + 10**8


class Proved:
    """A pool with one statement, and a client of its web."""

    def __init__(
        self, pool: WebPool, client: httpx.AsyncClient, log: MoneyLog, proofs: Proofs
    ) -> None:
        self.pool, self.client, self.log, self.proofs = pool, client, log, proofs
        self.mine = log.fees_since(0)

    @property
    def owner(self) -> dict[str, str]:
        return bearer(self.pool.tokens["box"])

    async def get(self, path: str, who: dict[str, str] | None = None) -> httpx.Response:
        return await self.client.get(path, headers=who or {})

    async def post(self, path: str, who: dict[str, str], **body: object) -> httpx.Response:
        return await self.client.post(path, headers=who, json=body)

    async def balances(self) -> dict[str, int]:
        return {each.account: each.amount_wei for each in self.pool.store.balances()}


@asynccontextmanager
async def proved(folder: Path) -> AsyncIterator[Proved]:
    async with web_pool(folder / "data", now_ms=NOW_MS) as pool:
        worker = await pool.enrol("box")
        row = pool.store.worker(worker)
        assert row is not None
        log = MoneyLog()
        log.ann, log.ann_worker = row.address, worker
        log.round(7)
        log.work(30)
        log.paid("payout/7/ann", row.address, 1_000)
        log.round(8)
        await pool.append(*(event for _, event in log.entries))
        proofs, statements = await _proofs(pool, folder)
        await statements.make_due()
        app = create_app(with_fields(pool.deps, proofs=proofs))
        async with (
            app.lifespan(),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://pool") as client,
        ):
            yield Proved(pool, client, log, proofs)


async def _proofs(pool: WebPool, folder: Path) -> tuple[Proofs, Statements]:
    def now_ms() -> int:
        return NOW_MS

    signer = PoolKey()
    terms = PublishedTerms(
        store=pool.store,
        signer=signer,
        clock_ms=lambda: START_MS,
        pool_name="Northern Lights",
        chain_id=42161,
    )
    await terms.publish(PROMISE)
    statements = Statements(
        store=pool.store,
        signer=signer,
        clock_ms=now_ms,
        folder=folder / "statements",
        pool_name="Northern Lights",
        chain_id=42161,
        terms=terms,
    )
    await statements.start()
    corrections = Corrections(store=pool.store, clock_ms=now_ms)
    disputes = Disputes(
        store=pool.store,
        statements=statements,
        terms=terms,
        corrections=corrections,
        clock_ms=now_ms,
        folder=folder / "disputes",
        pool_name="Northern Lights",
    )
    proofs = Proofs(
        statements=statements,
        terms=terms,
        disputes=disputes,
        corrections=corrections,
        signer=signer.address,
        chain_id=42161,
    )
    return proofs, statements


async def test_everybody_can_fetch_and_check_a_statement(tmp_path: Path) -> None:
    """The list, the signed file, the terms and who signs are public."""
    async with proved(tmp_path) as web:
        (row,) = (await web.get("/api/v1/statements")).json()
        answer = await web.get(row["url"])
        assert answer.headers["content-type"].startswith("application/json")
        parts = opened(answer.content, bytes_max=10**6)
        check_signature(parts, "statement")
        assert (await web.get("/api/v1/statements/7")).content == answer.content
        assert (parts.digest, read(parts).round, row["receipts"]) == (row["digest"], 7, 30)
        known = (await web.get("/.well-known/openpool.json")).json()
        assert known["signer"] == parts.signer == KEY.address
        assert known["newest_statement"] == row["url"] == "/statements/7.json"
        terms = opened((await web.get("/terms.json")).content, bytes_max=10**6)
        check_signature(terms, "terms")
        assert terms.digest == known["terms_digest"] == read(parts).terms
        for path in ("8.json", "x.json", "7.txt", "7", "..%2f7.json", "7.receipts.jsonl"):
            assert (await web.get(f"/statements/{path}")).status_code == 404
        notice = (await web.get("/api/v1/terms/notice")).json()
        assert (notice["version"], notice["next_version"], notice["changes"]) == (1, 0, [])


async def test_statements_come_in_pages(tmp_path: Path) -> None:
    """The newest first, each once; the page goes on with a link."""
    async with proved(tmp_path) as web:
        for number in range(9, 64):
            web.log.round(number)
        await web.pool.append(*(event for _, event in web.log.entries))
        statements = web.proofs.statements
        assert isinstance(statements, Statements)
        await statements.make_due()
        all_rounds, seen = list(range(62, 6, -1)), list[int]()
        while page := (await web.get(f"/api/v1/statements?limit=20&before={_last(seen)}")).json():
            seen += [row["round"] for row in page]
        assert seen == all_rounds
        assert (await web.get("/api/v1/statements?before=4711")).json() == []
        shown = (await web.get("/statements")).text
        assert 'href="/statements?before=13"' in shown
        shown = (await web.get("/statements?before=13")).text
        assert 'href="/statements/7.json"' in shown
        assert "?before=" not in shown.partition("<main")[2].partition("</main")[0]


def _last(seen: list[int]) -> int:
    return seen[-1] if seen else 0


async def test_an_owner_gets_its_receipts_and_nobody_elses(tmp_path: Path) -> None:
    """With proofs for the owner, all for the operator, none for the public."""
    async with proved(tmp_path) as web:
        statement = read(opened((await web.get("/statements/7.json")).content, bytes_max=10**6))
        answer = await web.get("/api/v1/receipts?round=7", web.owner)
        lines = answer.content.splitlines()
        assert list(check_receipts(statement, lines, address=web.log.ann)) == []
        whole = (await web.get("/api/v1/receipts?round=7", bearer(OPERATOR))).content.splitlines()
        assert len(whole) == 30 > len(lines) > 0
        assert list(check_receipts(statement, whole)) == []
        assert (await web.get("/api/v1/receipts?round=7")).status_code == 401
        assert (await web.get("/api/v1/receipts?round=9", web.owner)).status_code == 404
        other = await web.get(f"/api/v1/receipts?round=7&address={BOB}", web.owner)
        assert other.status_code == 403


async def test_one_receipt_is_signed_or_proven(tmp_path: Path) -> None:
    """By itself, with the pool's signature, or as a line with its proof."""
    async with proved(tmp_path) as web:
        fee = next(fee for fee in web.mine if fee.address == web.log.ann)
        answer = await web.get(f"/api/v1/receipts/one?job={fee.job}", web.owner)
        parts = opened(answer.content, bytes_max=10**6)
        check_signature(parts, "receipt")
        assert decode_receipt(parts.document).worker_wei == fee.worker_wei
        line = await web.get(f"/api/v1/receipts/one?job={fee.job}&proof=true", web.owner)
        statement = read(opened((await web.get("/statements/7.json")).content, bytes_max=10**6))
        assert list(check_receipts(statement, [line.content])) == []
        not_mine = next(fee for fee in web.mine if fee.address == BOB)
        answer = await web.get(f"/api/v1/receipts/one?job={not_mine.job}", web.owner)
        assert answer.status_code == 404


async def test_earnings_are_a_table_for_the_tax_office(tmp_path: Path) -> None:
    """Every movement with a running balance that ends at what is owed; payouts name their
    transaction."""
    async with proved(tmp_path) as web:
        answer = await web.get("/api/v1/earnings.csv?year=2026", web.owner)
        assert answer.headers["content-disposition"] == 'attachment; filename="earnings-2026.csv"'
        table = list(csv.DictReader(io.StringIO(answer.text)))
        owed = (await web.balances())[f"worker:{web.log.ann}"]
        assert int(table[-1]["balance_wei"]) == owed
        assert sum(int(row["amount_wei"]) for row in table) == owed
        payout = next(row for row in table if row["kind"] == "payout")
        assert payout["tx"] == "0x" + "ab" * 32
        assert payout["amount"] == "-0.000000000000001000"
        assert payout["reference"] == "payout/7/ann"
        work = next(row for row in table if row["kind"] == "work")
        assert work["reference"].startswith("orch.1.")
        assert work["date"].startswith("2026-11-")
        assert (await web.get("/api/v1/earnings.csv?year=2025", web.owner)).text.count("\n") == 1
        assert (await web.get("/api/v1/earnings.csv")).status_code == 401
        answer = await web.get(f"/api/v1/earnings.csv?address={BOB}", bearer(OPERATOR))
        assert answer.text.count("\n") > 1


async def test_earnings_are_the_same_rows_as_json(tmp_path: Path) -> None:
    """Row for row what the CSV says, with the same rights and years."""
    async with proved(tmp_path) as web:
        rows = (await web.get("/api/v1/earnings.json?year=2026", web.owner)).json()
        text = (await web.get("/api/v1/earnings.csv?year=2026", web.owner)).text
        same = ("kind", "reference", "asset", "amount_wei", "usd", "balance_wei", "tx")
        table = [{name: row[name] for name in same} for row in csv.DictReader(io.StringIO(text))]
        assert table
        assert [{name: row[name] for name in same} for row in rows] == table
        assert (await web.get("/api/v1/earnings.json?year=2025", web.owner)).json() == []
        assert (await web.get("/api/v1/earnings.json")).status_code == 401
        foreign = f"/api/v1/earnings.json?address={BOB}"
        assert (await web.get(foreign, web.owner)).status_code == 403
        assert (await web.get(foreign, bearer(OPERATOR))).json()
        assert (await web.get("/api/v1/earnings.json", bearer(OPERATOR))).status_code == 400


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("=1+1", "'=1+1"),
        ("+41", "'+41"),
        ("-x", "'-x"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("-12", "-12"),
        ("-0.5", "-0.5"),
        ("orch.1", "orch.1"),
        ("", ""),
    ],
)
def test_a_cell_is_never_a_formula(cell: str, shown: str) -> None:
    """Text that a spreadsheet would run is made plain text; numbers stay numbers."""
    assert plain(cell) == shown


async def test_a_dispute_keeps_the_evidence_and_ends_with_a_correction(tmp_path: Path) -> None:
    """The owner opens it, the pack is what the log says it is, the operator upholds it, and the
    books move once."""
    async with proved(tmp_path) as web:
        fee = next(fee for fee in web.mine if fee.address == web.log.ann)
        body = {"subject": f"job:{fee.job}", "claim": "It was twice as long."}
        opened_ = (await web.post("/api/v1/disputes", web.owner, **body)).json()
        again = (await web.post("/api/v1/disputes", web.owner, **body)).json()
        assert opened_ == again
        assert opened_["open"] is True
        name = opened_["dispute"]
        pack = await web.get(f"/api/v1/disputes/{name}/evidence", web.owner)
        assert sha256(pack.content).hexdigest() == opened_["evidence"]
        evidence = json.loads(pack.content)
        assert evidence["statement"]["document"]["round"] == 7
        assert evidence["receipts"][0]["receipt"]["job"] == fee.job
        assert evidence["findings"] == []
        assert {"fee-credited", "commission-taken"} <= {
            e["data"]["type"] for e in evidence["events"]
        }
        before = await web.balances()
        end = {
            "upheld": True,
            "reason": "Indeed.",
            "corrects": f"{fee.job}/fee-credited",
            "debit": "commission",
            "credit": f"worker:{web.log.ann}",
            "amount_wei": "77",
        }
        path = f"/api/v1/disputes/{name}/end"
        assert (await web.post(path, web.owner, **end)).status_code == 403
        ended = (await web.post(path, bearer(OPERATOR), **end)).json()
        assert (await web.post(path, bearer(OPERATOR), **end)).json() == ended
        assert (ended["open"], ended["upheld"], ended["correction"]) == (
            False,
            True,
            f"dispute-{name}",
        )
        after = await web.balances()
        account = f"worker:{web.log.ann}"
        assert after[account] - before[account] == before["commission"] - after["commission"] == 77
        assert (await web.get("/api/v1/disputes", web.owner)).json() == [ended]


@pytest.mark.parametrize(
    ("subject", "claim", "status"),
    [
        ("job:none", "x", 403),
        ("payout:none", "x", 403),
        ("statement:99", "x", 403),
        ("statement:abc", "x", 400),
        ("weather", "x", 400),
        ("payout:payout/7/ann", " ", 400),
        ("payout:payout/7/ann", "It never came.", 201),
        ("statement:7", "I miss a job.", 201),
    ],
)
async def test_what_can_be_disputed(tmp_path: Path, subject: str, claim: str, status: int) -> None:
    """One's own jobs, payouts and statements, with a claim; anything else is one sentence."""
    async with proved(tmp_path) as web:
        answer = await web.post("/api/v1/disputes", web.owner, subject=subject, claim=claim)
        assert answer.status_code == status, answer.text
        if status == 201:
            name = answer.json()["dispute"]
            pack = (await web.get(f"/api/v1/disputes/{name}/evidence", bearer(OPERATOR))).json()
            assert pack["events"]


async def test_somebody_elses_job_cannot_be_disputed_or_seen(tmp_path: Path) -> None:
    """Nor is it told whether there is such a job."""
    async with proved(tmp_path) as web:
        fee = next(fee for fee in web.mine if fee.address == BOB)
        answer = await web.post("/api/v1/disputes", web.owner, subject=f"job:{fee.job}", claim="x")
        assert answer.status_code == 403
        assert (await web.get("/api/v1/disputes/d123", web.owner)).status_code == 404
        assert (await web.get("/api/v1/disputes")).status_code == 401


async def test_a_correction_is_checked_and_counts_once(tmp_path: Path) -> None:
    """Made twice it moves once; what would break the books is refused in one sentence."""
    async with proved(tmp_path) as web:
        fee = web.mine[0]
        body = {
            "corrects": f"{fee.job}/fee-credited",
            "debit": "commission",
            "credit": f"worker:{BOB}",
            "amount_wei": "5",
            "reason": "Counted short.",
        }
        who = bearer(OPERATOR)
        before = await web.balances()
        first = (await web.post("/api/v1/corrections", who, **body)).json()
        second = (await web.post("/api/v1/corrections", who, **body)).json()
        assert first["correction"] == second["correction"]
        assert (first["is_new"], second["is_new"]) == (True, False)
        after = await web.balances()
        assert after[f"worker:{BOB}"] - before[f"worker:{BOB}"] == 5
        refused = [
            {"corrects": "nothing/fee-credited"},
            {"corrects": "999999"},
            {"amount_wei": "0"},
            {"amount_wei": "-5"},
            {"amount_wei": "1" * 60},
            {"debit": "worker:0xnobody"},
            {"credit": "commission"},
            {"credit": f"lpt/worker:{BOB}"},
        ]
        for change in refused:
            answer = await web.post("/api/v1/corrections", who, **(body | change))
            assert answer.status_code == 403, change
            assert answer.json()["detail"].endswith(".")
        by_number = await web.post("/api/v1/corrections", who, **(body | {"corrects": "12"}))
        assert by_number.status_code == 201
        assert (await web.post("/api/v1/corrections", web.owner, **body)).status_code == 403


async def test_the_time_for_disputes_ends(tmp_path: Path) -> None:
    """What the terms in force give, from when the statement was made."""
    async with proved(tmp_path) as web:
        book = web.pool
        late = NOW_MS + PROMISE.dispute_ms + 1
        proofs, _ = await _proofs(book, tmp_path)
        proofs.disputes._clock_ms = lambda: late  # type: ignore[attr-defined]
        with pytest.raises(Exception, match="30 days"):
            await proofs.disputes.open(web.log.ann, "statement:7", "Late.")


async def test_a_worker_is_told_before_terms_change(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Starting `openpool worker` says what will be different and when; without a pool, nothing."""
    async with proved(tmp_path) as web:
        proofs = web.proofs
        terms = proofs.terms
        assert isinstance(terms, PublishedTerms)
        app = create_app(with_fields(web.pool.deps, proofs=proofs))
        async with served(with_fields(web.pool, app=app)) as base:
            await asyncio.to_thread(tell_of_new_terms, base, "")
            assert capfd.readouterr().err == ""
            await terms.publish(replace(PROMISE, commission_ppm=300_000))
            await asyncio.to_thread(tell_of_new_terms, base, "")
        told = capfd.readouterr().err.splitlines()
        assert told[0].startswith("The pool's terms change on 20")
        assert told[1:] == ["  commission_ppm: 250000 becomes 300000."]
        notice = (await web.get("/api/v1/terms/notice")).json()
        assert (notice["version"], notice["next_version"]) == (1, 2)
        assert notice["promise"]["commission_ppm"] == 250_000
    await asyncio.to_thread(tell_of_new_terms, "http://127.0.0.1:9", "")
    assert capfd.readouterr().err == ""


async def test_a_pool_without_statements_says_so(tmp_path: Path) -> None:
    """The routes are there, and answer 404 in a sentence."""
    async with web_pool(tmp_path) as pool:
        async with (
            pool.app.lifespan(),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(pool.app), base_url="http://pool"
            ) as client,
        ):
            answer = await client.get("/api/v1/statements")
            assert (answer.status_code, answer.json()["code"]) == (404, "setup")


def test_an_announced_change_is_told_line_by_line() -> None:
    """What a worker reads before it applies."""
    after = replace(PROMISE, commission_ppm=300_000, text="New.", groups=())
    assert differences(PROMISE, after) == [
        "The text of the terms changes.",
        "commission_ppm: 250000 becomes 300000.",
    ]
