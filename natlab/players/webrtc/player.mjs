// libwebrtc, as a comparator: a data channel between two RTCPeerConnections. The messages are those of rounds.py.

import readline from "node:readline";
import wrtc from "@roamhq/wrtc";

const report = (message) => process.stdout.write(JSON.stringify(message) + "\n");
const GATHERING_MS = 1000;
const [CHECK_PACKETS, CHECK_INTERVAL_MS, CHECK_WITHIN_MS] = [10, 20, 1000];
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const now = () => Number(process.hrtime.bigint()) / 1e9;

class Round {
  constructor(number, config) {
    this.number = number;
    this.config = config;
    const urls = config.stun.map(([ip, port]) => `stun:${ip.includes(":") ? `[${ip}]` : ip}:${port}`);
    this.peer = new wrtc.RTCPeerConnection({ iceServers: [{ urls }] });
    this.peer.oniceconnectionstatechange = () => this.changed();
    this.peer.ondatachannel = ({ channel }) => this.use(channel);
    this.isDone = false;
    this.received = 0;
  }

  async start() {
    if (this.config.side === 0) {
      this.use(this.peer.createDataChannel("game"));
      await this.describe(await this.peer.createOffer());
    }
  }

  // The description goes out with its candidates, as those of the other players do. Gathering itself ends much later,
  // because libwebrtc also asks the STUN server from the loopback interface.
  async describe(description) {
    const gathered = new Promise((resolve) => {
      setTimeout(resolve, GATHERING_MS);
      this.peer.onicecandidate = ({ candidate }) => (!candidate || candidate.type === "srflx") && resolve();
    });
    await this.peer.setLocalDescription(description);
    await gathered;
    report({ round: this.number, signal: this.peer.localDescription });
  }

  async signaled(description) {
    await this.peer.setRemoteDescription(description);
    if (this.config.side === 1) await this.describe(await this.peer.createAnswer());
    report({ round: this.number, ready: now() });
  }

  changed() {
    const state = this.peer.iceConnectionState;
    if (this.isDone || !["connected", "completed", "failed"].includes(state)) return;
    this.isDone = true;
    if (state === "failed") report({ round: this.number, failed: "ICE failed" });
    else report({ round: this.number, direct: now(), path: "" });
  }

  use(channel) {
    this.channel = channel;
    channel.onmessage = () => this.received++;
  }

  async check() {
    for (let number = 0; number < CHECK_PACKETS; number++) {
      this.channel.send(`check ${number}`);
      await sleep(CHECK_INTERVAL_MS);
    }
    const end = Date.now() + CHECK_WITHIN_MS;
    while (this.received < CHECK_PACKETS && Date.now() < end) await sleep(CHECK_INTERVAL_MS);
    report({ round: this.number, held: this.received >= CHECK_PACKETS });
  }

  stop() {
    this.isDone = true;
    this.peer.close();
    report({ round: this.number, stopped: true });
  }
}

let current = null;
const failed = (error) => current && report({ round: current.number, failed: String(error) });

readline.createInterface({ input: process.stdin }).on("line", (line) => {
  const message = JSON.parse(line);
  if ("start" in message) {
    current = new Round(message.start, message.config);
    current.start().catch(failed);
  } else if ("stop" in message) current.stop();
  else if (message.round !== current?.number) return;
  else if ("signal" in message) current.signaled(message.signal).catch(failed);
  else if ("check" in message) current.check().catch(failed);
}).on("close", () => process.exit(0));

report({ started: true });
