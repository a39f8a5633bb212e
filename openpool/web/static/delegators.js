// Staking with the browser's wallet (EIP-1193): shows an account, has the server build the
// transactions of a wish, says what each does, and asks the wallet to sign and send them in turn.
// No key is ever asked for, and no amount is computed here but for showing it.
(() => {
  const at = (id) => document.getElementById(id);
  const panel = at("wallet-panel");
  if (!panel) return;
  const API = "/api/v1/delegation";
  const WAIT_MS = 2000;
  const WAITS_MAX = 90;
  const AMOUNTS = ["stake", "unstake", "withdraw-fees"];
  let address = "";
  let plan = null;

  const say = (text, bad = false, ...more) => {
    at("wallet-note").replaceChildren(text, ...more);
    at("wallet-note").className = bad ? "small bad" : "small";
  };
  const asked = async (path, options) => {
    const answer = await fetch(API + path, options);
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.detail || "The pool refused.");
    return body;
  };
  const wallet = (method, ...params) => window.ethereum.request({ method, params });
  // Rounded down to few digits, so that nobody is shown more than there is.
  const amount = (units, unit) => {
    const digits = units.padStart(19, "0");
    const [whole, part] = [digits.slice(0, -18), digits.slice(-18)];
    const places = whole === "0" ? part.search(/[1-9]/) + 4 : 4;
    const shown = `${BigInt(whole).toLocaleString("en").replaceAll(",", "\u202f")}.${part.slice(0, places)}`;
    return `${shown.replace(/\.?0+$/, "")}\u202f${unit}`;
  };

  // What is on chain, linked to the block explorer if the pool has one.
  const linked = (kind, id, text = id) => {
    if (!panel.dataset.explorer) return text;
    const a = document.createElement("a");
    a.href = `${panel.dataset.explorer}/${kind}/${id}`;
    a.target = "_blank";
    a.rel = "noopener noreferrer";
    a.textContent = text;
    return a;
  };

  const row = (name, ...values) => {
    const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
    dt.textContent = name;
    dd.append(...values);
    dd.className = "wrap";
    return [dt, dd];
  };
  const entry = (text, className = "") => {
    const li = document.createElement("li");
    li.textContent = text;
    li.className = className;
    return li;
  };

  const showAccount = (a) => {
    const ours = a.delegate === panel.dataset.orchestrator;
    at("account").replaceChildren(
      ...row("Account", linked("address", a.address)),
      ...row("Staked", ...(a.delegate
        ? [`${amount(a.stake_lpt, "LPT")} with `, ours ? "this orchestrator" : linked("address", a.delegate)]
        : ["nothing"])),
      ...row("Rewards not claimed", amount(a.rewards_lpt, "LPT")),
      ...row("Fees", `${amount(a.fees_wei, "ETH")}, of which ${amount(a.withdrawable_wei, "ETH")} can be withdrawn now`),
      ...row("Not staked", amount(a.balance_lpt, "LPT")),
      ...(a.locks.length ? row("Unbonding", a.locks.map((l) => `${amount(l.amount_lpt, "LPT")} from round ${l.withdraw_round}`).join(", ")) : []),
    );
    at("lock").replaceChildren(...a.locks.map((l) => new Option(`${l.lock}: ${amount(l.amount_lpt, "LPT")}`, l.lock)));
  };
  const refresh = async () => showAccount(await asked(`/accounts/${address}`));

  const guarded = (button, work) => async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      await work();
    } catch (error) {
      say(error.message || "The wallet refused.", true);
    } finally {
      button.disabled = false;
    }
  };

  const connect = async () => {
    if (!window.ethereum) return say("No wallet was found in this browser. Install one, or use the command below.", true);
    [address] = await wallet("eth_requestAccounts");
    await refresh();
    at("wallet-closed").hidden = true;
    at("wallet-open").hidden = false;
    say("");
  };

  const forget = () => {
    const deed = at("deed").value;
    plan = null;
    at("plan").hidden = true;
    at("amount-field").hidden = !AMOUNTS.includes(deed);
    at("lock-field").hidden = !["restake", "withdraw-stake"].includes(deed) || !at("lock").options.length;
    say("");
  };

  const show = async () => {
    const deed = at("deed").value;
    const wish = { deed, address };
    if (AMOUNTS.includes(deed) && at("amount").value.trim()) wish.amount = at("amount").value.trim();
    if (deed === "stake") wish.to = panel.dataset.orchestrator;
    if (!at("lock-field").hidden && at("lock").value) wish.lock = Number(at("lock").value);
    plan = await asked("/plan", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(wish) });
    const losses = plan.warnings.filter((w) => w.level === "loss");
    at("warnings").replaceChildren(...plan.warnings.map((w) =>
      entry(w.text + (w.loses_lpt !== "0" ? ` That is about ${amount(w.loses_lpt, "LPT")}.` : ""), w.level === "loss" ? "no" : "")));
    at("calls").replaceChildren(...plan.calls.map((c) => entry(c.what)));
    at("anyway-field").hidden = !losses.length;
    at("anyway").checked = false;
    at("plan").hidden = false;
    say("");
  };

  const mined = async (tx) => {
    for (let i = 0; i < WAITS_MAX; i += 1) {
      const receipt = await wallet("eth_getTransactionReceipt", tx);
      if (receipt) return BigInt(receipt.status) === 1n;
      await new Promise((resolve) => setTimeout(resolve, WAIT_MS));
    }
    throw new Error(`Transaction ${tx} has not been mined yet; look at it in your wallet.`);
  };

  const onChain = async (id) => {
    const chainId = `0x${id.toString(16)}`;
    if (BigInt(await wallet("eth_chainId")) === BigInt(id)) return;
    await wallet("wallet_switchEthereumChain", { chainId });
    if (BigInt(await wallet("eth_chainId")) !== BigInt(id)) throw new Error(`The wallet is on another chain; switch it to chain ${id}.`);
  };

  const send = async () => {
    if (!plan) return;
    if (!at("anyway-field").hidden && !at("anyway").checked) return say("Say first that you accept the loss, or wait for the reward.", true);
    const { calls, chain_id: chain } = plan;
    const sent = [];
    await onChain(chain);
    for (const [i, call] of calls.entries()) {
      say(`Confirm in your wallet: ${call.name} (${i + 1} of ${calls.length}).`);
      const value = `0x${BigInt(call.value).toString(16)}`;
      const tx = await wallet("eth_sendTransaction", { from: address, to: call.to, data: call.data, value });
      sent.push(" ", linked("tx", tx, call.name));
      say(`Waiting until ${call.name} is mined …`);
      if (!(await mined(tx))) throw new Error(`The contracts refused ${call.name} (transaction ${tx}).`);
    }
    forget();
    await refresh();
    say("Done: it is on chain.", false, ...(panel.dataset.explorer ? sent : []));
  };

  at("connect").addEventListener("click", guarded(at("connect"), connect));
  at("wish").addEventListener("submit", guarded(at("wish").querySelector("button"), show));
  at("send").addEventListener("click", guarded(at("send"), send));
  at("deed").addEventListener("change", forget);
  at("amount").addEventListener("input", forget);
  at("lock").addEventListener("change", forget);
})();
