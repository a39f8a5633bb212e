// Live video: takes pictures of a camera or a file, sends them over a WebSocket, draws what is seen.
// Nothing leaves the page before "Start", and only pictures do.
(() => {
  const at = (id) => document.getElementById(id);
  if (!at("live-video")) return;
  const [stage, video, canvas] = [at("stage"), at("picture"), at("boxes")];
  const SIDE_MAX = 960; // longer sides are scaled down before they are sent
  const QUALITY = 0.8;
  const WAITING_MAX = 3; // pictures on the way; more would only be older
  const STALE_MS = 2500;
  const SHOTS_MAX = 60; // pictures kept until their answer comes
  const PALETTE = ["#46d3a4", "#8db4ff", "#f0b35a", "#d19bea", "#ff8a80", "#7fd8ff", "#e8e05a"];

  const pen = canvas.getContext("2d");
  const shot = document.createElement("canvas");
  let session = null;

  const say = (text) => { at("said").textContent = text; };
  const note = (state, text) => { stage.dataset.state = state; at("stage-note").textContent = text; };
  const colours = new Map();
  const colour = (label) => {
    if (!colours.has(label)) colours.set(label, PALETTE[colours.size % PALETTE.length]);
    return colours.get(label);
  };

  const isFile = () => at("source").value === "file";
  at("source").addEventListener("change", () => { at("file-field").hidden = !isFile(); });

  const openCamera = async () => {
    if (!navigator.mediaDevices) throw new Error("Browsers show a camera to pages over HTTPS or on localhost only; choose a file.");
    video.srcObject = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1280 } } });
  };
  const openFile = () => {
    const [file] = at("file").files;
    if (!file) throw new Error("Choose a video file first.");
    video.src = URL.createObjectURL(file);
    video.loop = true;
  };
  const closePicture = () => {
    video.pause();
    for (const track of video.srcObject ? video.srcObject.getTracks() : []) track.stop();
    if (video.src) URL.revokeObjectURL(video.src);
    video.srcObject = null;
    video.removeAttribute("src");
    video.load();
  };

  const connect = () => {
    const query = new URLSearchParams({ fps: at("fps").value, threshold: at("threshold").value });
    if (at("drawn-by").value === "worker") query.set("annotate", "true");
    const url = new URL(`/api/v1/live/${at("app").value}?${query}`, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const key = at("key") ? at("key").value.trim() : "";
    const socket = new WebSocket(url, ["openpool.live", ...(key ? [`openpool.key.${key}`] : [])]);
    socket.binaryType = "arraybuffer";
    return socket;
  };

  const send = () => {
    const { socket } = session;
    const busy = session.sent - session.heard >= WAITING_MAX && performance.now() - session.heardAt < STALE_MS;
    if (busy || socket.bufferedAmount > 1e6 || !video.videoWidth || session.taking) return;
    const scale = Math.min(1, SIDE_MAX / Math.max(video.videoWidth, video.videoHeight));
    shot.width = Math.round(video.videoWidth * scale);
    shot.height = Math.round(video.videoHeight * scale);
    shot.getContext("2d").drawImage(video, 0, 0, shot.width, shot.height);
    const mine = session;
    mine.taking = true;
    shot.toBlob((blob) => {
      mine.taking = false;
      if (!blob || session !== mine || socket.readyState !== WebSocket.OPEN) return;
      if (mine.sent - mine.heard >= WAITING_MAX) mine.heard = mine.sent; // it gave no answer to some
      mine.shots.set(mine.sent, blob);
      if (mine.shots.size > SHOTS_MAX) mine.shots.delete(mine.shots.keys().next().value);
      socket.send(blob);
      mine.sent += 1;
    }, "image/jpeg", QUALITY);
  };

  // The picture that an answer is about: frames are numbered as they were sent.
  const shotOf = async (frame) => {
    const blob = session.shots.get(frame);
    for (const older of session.shots.keys()) if (older <= frame) session.shots.delete(older);
    return blob ? createImageBitmap(blob) : null;
  };

  // A picture that the worker has drawn into.
  const pictureOf = (base64) => {
    const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
    return createImageBitmap(new Blob([bytes], { type: "image/jpeg" }));
  };

  // The newest answer over the picture it is about, so that boxes fit what moves.
  const draw = (seen, shot) => {
    canvas.width = seen.width;
    canvas.height = seen.height;
    if (shot) pen.drawImage(shot, 0, 0, canvas.width, canvas.height);
    const unit = Math.max(seen.width / canvas.clientWidth, seen.height / canvas.clientHeight);
    pen.lineWidth = 3 * unit;
    pen.font = `600 ${Math.round(14 * unit)}px system-ui, sans-serif`;
    pen.textBaseline = "top";
    for (const { label, score, x, y, w: wide, h: high } of seen.jpeg ? [] : seen.boxes) {
      const text = `${label} ${Math.round(score * 100)}%`;
      const [w, h] = [pen.measureText(text).width + 10 * unit, 21 * unit];
      const [left, top] = [Math.max(0, Math.min(x, seen.width - w)), y > h ? y - h : y];
      pen.strokeStyle = pen.fillStyle = colour(label);
      pen.strokeRect(x, y, wide, high);
      pen.fillRect(left, top, w, h);
      pen.fillStyle = "#0e1317";
      pen.fillText(text, left + 5 * unit, top + 3 * unit);
    }
    canvas.setAttribute("aria-label", `Seen: ${seen.boxes.map((b) => b.label).join(", ") || "nothing"}`);
  };

  const list = (boxes) => {
    const counts = new Map();
    for (const { label } of boxes) counts.set(label, (counts.get(label) || 0) + 1);
    const rows = [...counts].sort().map(([label, count]) => {
      const row = document.createElement("li");
      const dot = document.createElement("i");
      dot.style.background = colour(label);
      row.append(dot, count > 1 ? `${label} × ${count}` : label);
      return row;
    });
    if (!rows.length) {
      const none = document.createElement("li");
      none.className = "dim";
      none.textContent = "Nothing at the moment.";
      rows.push(none);
    }
    at("seen").replaceChildren(...rows);
  };

  const hear = async (text) => {
    const told = JSON.parse(text);
    session.heard += 1;
    session.heardAt = performance.now();
    if (told.error) return say(told.error.message || told.error);
    session.times.push(session.heardAt);
    while (session.times[0] < session.heardAt - 3000) session.times.shift();
    const span = (session.heardAt - session.times[0]) / 1000;
    at("rate").textContent = span > 0.5 ? `${((session.times.length - 1) / span).toFixed(1)} a second` : "";
    say(`${session.heard} pictures looked at, the last is ${told.width} × ${told.height}.`);
    note("live", "");
    const mine = session;
    const sent = await shotOf(told.frame);
    const shot = told.jpeg ? await pictureOf(told.jpeg) : sent;
    if (session !== mine || told.frame < mine.drawn) return;
    mine.drawn = told.frame;
    draw(told, shot);
    list(told.boxes);
  };

  const ended = (close) => {
    if (!session) return;
    stop(close.reason || (close.code === 1000 ? "The session has ended." : "The connection was lost."));
  };

  const start = async () => {
    at("start").disabled = true;
    note("waiting", "Opening …");
    try {
      if (isFile()) openFile(); else await openCamera();
      await video.play();
      const socket = connect();
      session = { socket, sent: 0, heard: 0, heardAt: performance.now(), times: [], shots: new Map(), drawn: -1, taking: false, timer: 0 };
      socket.onmessage = (message) => hear(message.data);
      socket.onclose = ended;
      socket.onopen = () => {
        note("waiting", "Waiting for the first answer …");
        session.timer = setInterval(send, 1000 / Math.min(30, Math.max(1, Number(at("fps").value) || 5)));
      };
      at("stop").disabled = false;
    } catch (error) {
      session = null;
      closePicture();
      at("start").disabled = false;
      note("idle", error.name === "NotAllowedError" ? "The camera was not allowed." : error.message);
    }
  };

  const stop = (why) => {
    const over = session;
    session = null;
    if (over) { clearInterval(over.timer); over.socket.close(1000); }
    closePicture();
    pen.clearRect(0, 0, canvas.width, canvas.height);
    at("start").disabled = false;
    at("stop").disabled = true;
    at("rate").textContent = "";
    note("idle", why);
  };

  at("start").addEventListener("click", start);
  at("stop").addEventListener("click", () => stop("Stopped."));
  addEventListener("pagehide", () => { if (session) stop("Stopped."); });
})();
