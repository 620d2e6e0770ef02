// The recordings of one screen, one at a time, from the beginning to the end: nothing can be skipped.

export class Players {
  /**
   * @param {() => void} changed whenever something is to be shown otherwise
   * @param {() => void} failed a recording cannot be played
   */
  constructor(changed, failed) {
    this.changed = changed;
    this.failed = failed;
    /** @type {{part: string, audio: HTMLAudioElement, heard: boolean}[]} */
    this.all = [];
    this.plays = 0;
  }

  /**
   * Loads them whole, so that none stops in the middle.
   * @param {{part: string, token: string}[]} sounds
   */
  async load(sounds) {
    this.clear();
    const blobs = await Promise.all(
      sounds.map(async ({ token }) => {
        const response = await fetch(`/sound/${token}`);
        if (!response.ok) throw new Error("sound");
        return response.blob();
      }),
    );
    this.all = sounds.map(({ part }, i) => {
      const player = { part, audio: new Audio(URL.createObjectURL(blobs[i])), heard: false };
      player.audio.addEventListener("ended", () => this.#ended(player));
      player.audio.addEventListener("error", this.failed);
      for (const event of ["play", "pause", "timeupdate"]) player.audio.addEventListener(event, this.changed);
      return player;
    });
  }

  clear() {
    for (const { audio } of this.all) {
      audio.pause();
      URL.revokeObjectURL(audio.src);
    }
    this.all = [];
    this.plays = 0;
  }

  get heard() {
    return this.all.length > 0 && this.all.every((p) => p.heard);
  }

  /** @param {number} index play it, or pause it when it plays; the next that was not heard when not given */
  toggle(index = this.all.findIndex((p) => !p.audio.paused)) {
    const unheard = this.all.findIndex((p) => !p.heard);
    const player = this.all[index >= 0 ? index : Math.max(unheard, 0)];
    if (!player) return;
    if (!player.audio.paused) {
      player.audio.pause();
      return;
    }
    for (const other of this.all) if (other !== player) other.audio.pause();
    if (player.audio.currentTime === 0 || player.audio.ended) this.plays += 1;
    player.audio.play().catch(() => this.changed());
  }

  #ended(player) {
    player.heard = true;
    const next = this.all.indexOf(player) + 1;
    if (next < this.all.length && !this.all[next].heard) this.toggle(next);
    this.changed();
  }
}
