"use strict";
const state = document.getElementById("state"), away = document.getElementById("away");
let seen = "";
async function look() {
  try {
    const answer = await fetch("state?seen=" + encodeURIComponent(seen), {cache: "no-store"});
    if (!answer.ok) throw new Error(answer.status);
    const now = await answer.json();
    if (now.html !== undefined) {
      state.innerHTML = now.html;
      document.title = now.title;
      seen = now.version;
    }
    away.hidden = true;
  } catch {
    away.hidden = false;
  }
  setTimeout(look, 2000);
}
look();
