"""The configuration: precedence, exact values, and sentences about what is wrong."""

import re
from fractions import Fraction
from pathlib import Path

import pytest

from openpool.config import (
    Config,
    ConfigError,
    HostPort,
    Loaded,
    Secret,
    explain,
    load,
    load_for_serving,
    reference,
)
from openpool.core.errors import SetupError

ROOT = Path(__file__).parents[2]
SERVABLE = """
orchestrators:
  - address: 10.0.0.5:8935
    secret: 0x00ab
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "openpool.yaml"
    path.write_text(text)
    return path


def loaded(tmp_path: Path, text: str = "", **layers: dict[str, str]) -> Loaded:
    environment = layers.get("environment", {})
    return load(written(tmp_path, text), environment=environment, flags=layers.get("flags"))


def problems(tmp_path: Path, text: str = "", **environment: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text, environment=environment)
    return caught.value.problems


def test_defaults_alone_are_a_configuration() -> None:
    """With no file and no variable every setting has its default."""
    config = load(environment={}).config
    assert config == Config()
    assert config.commission == 250_000
    assert config.workers.listen == HostPort("0.0.0.0", 8936)


def test_flags_beat_environment_beats_file_beats_defaults(tmp_path: Path) -> None:
    """Each later layer wins, setting by setting, and the source says which one did."""
    found = loaded(
        tmp_path,
        "workers: {mode: private, max: 5}\ncommission: 10%\nweb: {listen: 127.0.0.1:1}",
        environment={"OPENPOOL__WORKERS__MAX": "6", "OPENPOOL__COMMISSION": "20%"},
        flags={"commission": "30%"},
    )
    assert (found.config.workers.mode, found.config.workers.max) == ("private", 6)
    assert found.config.commission == 300_000
    assert found.sources["workers.mode"].endswith("openpool.yaml:1")
    assert found.sources["workers.max"] == "OPENPOOL__WORKERS__MAX"
    assert found.sources["commission"] == "--set commission"
    assert "log.level" not in found.sources


@pytest.mark.parametrize(
    ("text", "ppm"),
    [
        ("25%", 250_000),
        ("250000ppm", 250_000),
        ("0.25", 250_000),
        ("12.3456%", 123_456),
        ("0", 0),
        ("1", 1_000_000),
        ("0.1", 100_000),
        ("100 %", 1_000_000),
    ],
)
def test_commission_is_exact(tmp_path: Path, text: str, ppm: int) -> None:
    """A rate in any of its three forms becomes exactly its parts per million."""
    assert loaded(tmp_path, f"commission: {text}").config.commission == ppm


@pytest.mark.parametrize("text", ["101%", "-1%", "25 percent", "0.0000001", "1e-1", "nan", "1.5"])
def test_a_rate_that_is_none_is_refused(tmp_path: Path, text: str) -> None:
    """More than one, less than zero, or finer than a ppm is no rate, and the text is named."""
    (problem,) = problems(tmp_path, f"commission: {text}")
    assert "commission is" in problem
    assert text in problem
    assert "openpool.yaml:1" in problem
    assert "25%" in problem


def test_yaml_does_not_turn_text_into_numbers(tmp_path: Path) -> None:
    """0x… stays the text it is, `no` stays a name, and an octal-looking number is decimal."""
    found = loaded(tmp_path, SERVABLE + "    name: no\nlimits: {memory_bytes: 0100000000}\n").config
    assert found.orchestrators[0].secret.reveal() == "0x00ab"
    assert found.orchestrators[0].name == "no"
    assert found.limits.memory_bytes == 100_000_000


@pytest.mark.parametrize(
    ("text", "value"), [("1200", 1200), ("1/3", Fraction(1, 3)), ("0.25", Fraction(1, 4))]
)
def test_price_is_exact(tmp_path: Path, text: str, value: Fraction) -> None:
    """A price per pixel may be whole, decimal or a fraction, and loses nothing."""
    assert loaded(tmp_path, f"price: {{wei_per_pixel: {text}}}").config.price.wei_per_pixel == value


def test_a_price_with_nothing_below_is_refused(tmp_path: Path) -> None:
    """1/0 is one sentence, not a division error."""
    (problem,) = problems(tmp_path, "price: {wei_per_pixel: 1/0}")
    assert "price.wei_per_pixel is `1/0`" in problem


def test_a_typo_is_met_with_the_right_name(tmp_path: Path) -> None:
    """An unknown setting is refused, and the nearest known one suggested, in file and variable."""
    assert problems(tmp_path, "comission: 10%") == [
        f"{tmp_path}/openpool.yaml:1: there is no setting `comission`; did you mean `commission`?"
    ]
    assert problems(tmp_path, OPENPOOL__WEB__LISTN="x") == [
        "OPENPOOL__WEB__LISTN: there is no setting `web.listn`; "
        "did you mean `OPENPOOL__WEB__LISTEN`?"
    ]


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    """A person fixes a file once: every wrong value is named with its line."""
    found = problems(
        tmp_path,
        "commission: lots\nworkers:\n  mode: open\n  max: 0\nweb: {listen: nowhere}\nlog: loud\n",
        OPENPOOL__DATA_DIRR="x",
    )
    assert len(found) == 6
    assert any("openpool.yaml:3: workers.mode is `open`" in problem for problem in found)
    assert any("public, private" in problem for problem in found)
    assert any("workers.max is `0`; it must be a whole number from 1 to" in p for p in found)


def test_one_orchestrator_by_environment_alone() -> None:
    """The simple case needs no file: two variables name the orchestrator and its secret."""
    config = load(
        environment={
            "OPENPOOL__ORCHESTRATOR_ADDRESS": "127.0.0.1:8935",
            "OPENPOOL__ORCHESTRATOR_SECRET": "s3cret",
            "OPENPOOL__ORCHESTRATORS__1__ADDRESS": "[::1]:8935",
            "OPENPOOL__ORCHESTRATORS__1__SECRET": "other",
            "OPENPOOL__ORCHESTRATORS__1__NAME": "second",
        }
    ).config
    assert [str(o.address) for o in config.orchestrators] == ["127.0.0.1:8935", "[::1]:8935"]
    assert config.orchestrators[0].secret == Secret("s3cret")


def test_environment_changes_one_field_of_a_listed_orchestrator(tmp_path: Path) -> None:
    """A number in a variable means an entry of the file's list; the rest of it stays."""
    config = loaded(
        tmp_path, SERVABLE, environment={"OPENPOOL__ORCHESTRATORS__0__SECRET": "new"}
    ).config
    assert str(config.orchestrators[0].address) == "10.0.0.5:8935"
    assert config.orchestrators[0].secret.reveal() == "new"


def test_an_empty_variable_changes_nothing(tmp_path: Path) -> None:
    """Containers pass empty variables on; they leave what the file says."""
    found = loaded(tmp_path, "commission: 10%", environment={"OPENPOOL__COMMISSION": ""})
    assert found.config.commission == 100_000


def test_groups_override_the_commission(tmp_path: Path) -> None:
    """A group has its own commission, every other one the pool's."""
    config = loaded(tmp_path, "groups: {friends: {commission: 10%}}").config
    assert config.commission_ppm("friends") == 100_000
    assert config.commission_ppm("default") == 250_000


def test_a_group_that_says_nothing_keeps_the_pools_commission(tmp_path: Path) -> None:
    """Naming a group without a commission does not change what is kept."""
    config = loaded(tmp_path, "commission: 5%\ngroups: {friends: {}}").config
    assert config.commission_ppm("friends") == 50_000


def test_secret_from_a_private_file(tmp_path: Path) -> None:
    """`file:` reads the secret next to the configuration, and the value is never printed."""
    secret = tmp_path / "orch"
    secret.write_text("hush\n")
    secret.chmod(0o600)
    found = loaded(tmp_path, "orchestrators: [{address: 1.2.3.4:5, secret: file:orch}]")
    assert found.config.orchestrators[0].secret.reveal() == "hush"
    assert "hush" not in repr(found.config)
    assert "hush" not in repr(explain(found))


def test_a_secret_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """A world-readable secret is no secret; the sentence says how to close it."""
    secret = tmp_path / "orch"
    secret.write_text("hush")
    secret.chmod(0o644)
    (problem,) = problems(tmp_path, "orchestrators: [{address: 1.2.3.4:5, secret: file:orch}]")
    assert "can be read by other users" in problem
    assert "chmod 600" in problem
    assert "hush" not in problem


def test_a_bad_secret_is_refused_without_being_shown(tmp_path: Path) -> None:
    """The sentence about an unusable secret does not contain it."""
    (problem,) = problems(tmp_path, 'orchestrators: [{address: 1.2.3.4:5, secret: "schlüssel"}]')
    assert "schlüssel" not in problem
    assert "orchestrators[0].secret is not usable" in problem


def test_a_missing_field_of_an_orchestrator_is_named(tmp_path: Path) -> None:
    """An orchestrator without a secret is refused before anything starts."""
    (problem,) = problems(tmp_path, "orchestrators:\n  - address: 1.2.3.4:5\n")
    assert "orchestrators[0].secret is not set" in problem


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("commission: 1%\ncommission: 2%", "`commission` is set twice"),
        ("a: [", "this is not YAML"),
        ("pool:\n  name: x\n web: {}", "indentation, which is spaces only"),
        ("commission: !!python/object:os.system 1", "YAML tags"),
        ("- 1", "must hold settings like"),
        ("x: &a [*a]", "nested deeper"),
        ("\x00", "is not YAML text"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str, sentence: str) -> None:
    """Broken, tagged, recursive or doubled YAML is one sentence with its place."""
    with pytest.raises(SetupError, match=r"openpool\.yaml") as caught:
        loaded(tmp_path, text)
    assert sentence in str(caught.value)


def test_a_missing_file_is_one_sentence(tmp_path: Path) -> None:
    """A file that was named but is not there is an error, never silently the defaults."""
    with pytest.raises(SetupError, match="no such file"):
        load(tmp_path / "none.yaml", environment={})


def test_contradictions_are_refused(tmp_path: Path) -> None:
    """Values that are each good but not together are told apart."""
    found = problems(
        tmp_path,
        """
orchestrators:
  - {address: "1.2.3.4:5", secret: a}
  - {address: "1.2.3.4:6", secret: b}
price: {source: metrics}
web: {listen: 127.0.0.1:8936, tls: {cert: x.pem}}
lpt: {swap: true, pool: none}
""",
    )
    assert any("lpt.swap needs lpt.pool" in problem for problem in found)
    assert any("Two orchestrators are called `main`" in problem for problem in found)
    assert any("orchestrators[0].status_url is not set" in problem for problem in found)
    assert any("web.tls needs both" in problem for problem in found)
    assert any("both use port 8936" in problem for problem in found)


def test_serving_needs_an_orchestrator(tmp_path: Path) -> None:
    """Reading the books needs none, but serving without one is refused with both ways to set it."""
    with pytest.raises(ConfigError, match="OPENPOOL__ORCHESTRATOR_ADDRESS"):
        load_for_serving(written(tmp_path, ""), environment={})
    assert load_for_serving(written(tmp_path, SERVABLE), environment={})


def test_serving_needs_the_rules_that_are_named(tmp_path: Path) -> None:
    """A revenue rule that is not installed is refused by `config check`, with its place."""
    named = SERVABLE + "\nrevenue:\n  hooks: [{rule: holdback}, {rule: holdbak}]\n"
    with pytest.raises(
        SetupError, match=r"^revenue\.hooks\[1\]: there is no revenue rule `holdbak`"
    ):
        load_for_serving(written(tmp_path, named), environment={})


def test_a_price_list_is_work_enough(tmp_path: Path) -> None:
    """A pool with prices for customers of its own needs no orchestrator."""
    text = "ai: {prices: [{pipeline: llm, price: 7 wei, per: 1000}]}"
    (row,) = load_for_serving(written(tmp_path, text), environment={}).config.ai.prices
    assert (row.pipeline, row.price.amount, row.price.currency) == ("llm", 7, "wei")


def test_a_price_in_usd_needs_a_rate(tmp_path: Path) -> None:
    """Nobody guesses what an ETH is worth."""
    row = "prices: [{pipeline: llm, price: 0.15 USD, per: 1000000}]"
    (problem,) = problems(tmp_path, f"ai: {{{row}}}")
    assert "ai.prices[0].price is in USD, but ai.usd_per_eth is not set" in problem
    assert loaded(tmp_path, f"ai: {{usd_per_eth: 3000.5, {row}}}").config.ai.prices


@pytest.mark.parametrize("price", ["0.15", "free", "-1 USD", "1e3 wei", "1 EUR"])
def test_a_price_needs_a_number_and_a_currency(tmp_path: Path, price: str) -> None:
    """What cannot be read as money is refused with an example."""
    (problem,) = problems(tmp_path, f"ai: {{prices: [{{pipeline: llm, price: {price}}}]}}")
    assert "like 0.15 USD or 1200 wei" in problem


def test_explain_names_every_setting_once() -> None:
    """What `config explain` shows is complete, and its variables work."""
    shown = explain(
        load(
            environment={
                "OPENPOOL__ORCHESTRATOR_ADDRESS": "a:1",
                "OPENPOOL__ORCHESTRATOR_SECRET": "s",
            }
        )
    )
    paths = [setting.path for setting in shown]
    assert len(paths) == len(set(paths))
    assert {"commission", "orchestrators[0].secret", "web.tls.cert", "log.level"} <= set(paths)
    by_path = {setting.path: setting for setting in shown}
    assert by_path["orchestrators[0].secret"].value == "****"
    assert by_path["orchestrators[0].address"].variable == "OPENPOOL__ORCHESTRATORS__0__ADDRESS"
    assert all(setting.meaning for setting in shown)


def test_every_default_is_allowed_by_its_own_rule() -> None:
    """Setting each value to what `explain` shows of its default gives the same configuration."""
    shown = explain(load(environment={}))
    again = load(environment={s.variable: s.value for s in shown})
    assert again.config == Config(data_dir=again.config.data_dir)
    assert again.config.data_dir.name == "data"


def test_the_reference_is_current() -> None:
    """docs/reference/settings.md is what `openpool config reference` prints."""
    assert (ROOT / "docs/reference/settings.md").read_text() == reference()


def test_the_example_is_good(tmp_path: Path) -> None:
    """The example file can be served as it stands, once the secret's file is there."""
    (tmp_path / "orch-secret.txt").write_text("s")
    (tmp_path / "orch-secret.txt").chmod(0o600)
    text = (ROOT / "openpool.example.yaml").read_text()
    config = load_for_serving(written(tmp_path, text), environment={}).config
    assert config.commission == Config().commission
    assert config.commission_ppm("friends") == 100_000


def test_what_the_example_comments_out_is_good_as_well(tmp_path: Path) -> None:
    """Each setting that is a comment in the example can be taken in by removing the sign."""
    for name in ("orch-secret.txt", "rpc-with-key.txt", "terms.txt"):
        (tmp_path / name).write_text("https://arb2.example.org")
        (tmp_path / name).chmod(0o600)
    text = (ROOT / "openpool.example.yaml").read_text()
    text = re.sub(r"(?m)^( *)# ( *(?:- )?[a-z_]+:.*)$", r"\1\2", text)
    config = load_for_serving(written(tmp_path, text), environment={}).config
    assert [each.url.reveal() for each in config.chain.endpoints][1] == "https://arb2.example.org"
    assert [each.rule for each in config.revenue.hooks] == ["holdback"]
    assert config.payouts.passphrase.name == "wallet.json.pass"
    assert config.lpt.swap


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", "https://arbiscan.io"),
        ("chain: {id: 421614}", "https://sepolia.arbiscan.io"),
        ("chain: {id: 31337}", ""),
        ("chain: {explorer: none}", ""),
        ("chain: {id: 31337, explorer: 'https://scan.example/arb/'}", "https://scan.example/arb"),
    ],
)
def test_the_block_explorer_follows_the_chain(tmp_path: Path, text: str, url: str) -> None:
    """Arbiscan on Arbitrum unless another one, or none, is named; else none."""
    assert loaded(tmp_path, text).config.chain.explorer_url == url


@pytest.mark.parametrize(
    "url", ["http://scan.example", "scan.example", "https://", "https://a b", "javascript:alert(1)"]
)
def test_an_explorer_that_is_none_is_refused(tmp_path: Path, url: str) -> None:
    """In one sentence that says what it must be."""
    (problem,) = problems(tmp_path, f"chain: {{explorer: '{url}'}}")
    assert f"chain.explorer is `{url}`; it must be an https:// address, or none." in problem


def test_port_zero_takes_a_free_port(tmp_path: Path) -> None:
    """Where the pool listens the port may be 0, which never clashes; where it dials it may not."""
    text = "workers: {listen: 127.0.0.1:0}\nweb: {listen: '[::1]:0'}"
    config = loaded(tmp_path, text).config
    assert (config.workers.listen.port, config.web.listen) == (0, HostPort("::1", 0))
    problems(tmp_path, "orchestrators: [{address: h:0, secret: s}]")
