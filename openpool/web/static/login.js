// Signing in with a wallet: ask it for an address, have it sign the pool's message.
(() => {
  const button = document.querySelector("#wallet");
  const note = document.querySelector("#wallet-note");
  if (!button) return;
  const say = (text) => { note.textContent = text; };
  const post = async (url, data) => {
    const answer = await fetch(url, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(data),
    });
    const body = await answer.json();
    if (!answer.ok) throw new Error(body.detail || "The pool refused.");
    return body;
  };
  button.addEventListener("click", async () => {
    if (!window.ethereum) return say("No wallet was found in this browser. Install one, or use a worker token.");
    button.disabled = true;
    try {
      const [address] = await window.ethereum.request({ method: "eth_requestAccounts" });
      const { message } = await post("/api/v1/enroll/nonce", { address });
      say("Confirm the message in your wallet.");
      const hex = "0x" + [...new TextEncoder().encode(message)].map((b) => b.toString(16).padStart(2, "0")).join("");
      const signature = await window.ethereum.request({ method: "personal_sign", params: [hex, address] });
      await post("/api/v1/session", { message, signature });
      location.assign("/workers");
    } catch (error) {
      say(error.message || "The wallet refused.");
    } finally {
      button.disabled = false;
    }
  });
})();
