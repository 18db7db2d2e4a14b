/**
 * A store made by the commands of the checkout, with six published days, and `dpdau serve` on it.
 *
 * A window is three days, so that six days have MAU, and the budget is so large that noise hides nothing here.
 */

import { type ChildProcess, execFile, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { closeSync, existsSync, openSync } from "node:fs";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import type { TestProject } from "vitest/node";

export const PEOPLE = 30;
export const DAYS = ["2025-01-01", "2025-01-02", "2025-01-03", "2025-01-04", "2025-01-05", "2025-01-06"] as const;
export const WINDOW = 3;

/** Where the server is, and how its commands are called beside it. */
export interface Served {
  baseUrl: string;
  /** A key of all scopes. */
  apiKey: string;
  /** A key that may read numbers, and nothing else. */
  readKey: string;
  dpdau: string;
  folder: string;
  environment: Record<string, string>;
}

declare module "vitest" {
  export interface ProvidedContext {
    served: Served;
  }
}

const run = promisify(execFile);

/** Calls `dpdau`; what it printed, read as JSON. */
export async function dpdau(served: Pick<Served, "dpdau" | "folder" | "environment">, ...words: string[]) {
  const { stdout } = await run(served.dpdau, words, { cwd: served.folder, env: served.environment });
  return JSON.parse(stdout) as unknown;
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const command = process.env["DPDAU_BIN"] ?? fileURLToPath(new URL("../../../.venv/bin/dpdau", import.meta.url));
  if (!existsSync(command)) {
    throw new Error(`There is no ${command}: make .venv/.ready in the checkout, or name the command in DPDAU_BIN.`);
  }
  const folder = await mkdtemp(join(tmpdir(), "dpdau-client-"));
  let server: ChildProcess | undefined;
  const end = async () => {
    if (server) await ended(server);
    await rm(folder, { recursive: true, force: true });
  };
  try {
    const made = await published(command, folder);
    const port = await freePort();
    server = await serving(made, port);
    project.provide("served", { ...made, baseUrl: `http://127.0.0.1:${port}` });
  } catch (error) {
    await end();
    throw error;
  }
  return end;
}

async function published(command: string, folder: string): Promise<Omit<Served, "baseUrl">> {
  const apiKey = randomBytes(24).toString("hex");
  const environment = {
    PATH: process.env["PATH"] ?? "",
    HOME: folder,
    DATA_DIR: join(folder, "store"),
    HASH_SALT_SECRET: randomBytes(32).toString("hex"),
    SERVICE_API_KEY: apiKey,
    START_DATE: DAYS[0],
    MAU_WINDOW_DAYS: String(WINDOW),
    MAU_MECHANISM: "gaussian",
    EPSILON_MAU: "5",
    MAU_BUDGET_TOTAL: "60",
    DAU_BUDGET_TOTAL: "60",
    RESTATEMENTS_PER_MONTH: "0",
  };
  const place = { dpdau: command, folder, environment };
  const events = DAYS.flatMap((day) =>
    Array.from({ length: PEOPLE }, (_, person) => JSON.stringify({ user_id: `user-${person}`, op: "+", day })),
  );
  await writeFile(join(folder, "events.jsonl"), events.join("\n"));
  await dpdau(place, "ingest", "--from", "events.jsonl");
  await dpdau(place, "run", "--from", DAYS[0], "--to", DAYS[5]);
  const made = (await dpdau(place, "api-key", "new", "dashboard", "--scope", "read")) as { key: string };
  return { ...place, apiKey, readKey: made.key };
}

async function freePort(): Promise<number> {
  const listening = createServer().listen(0, "127.0.0.1");
  await once(listening, "listening");
  const address = listening.address();
  listening.close();
  await once(listening, "close");
  if (address === null || typeof address === "string") throw new Error("The system gave no port.");
  return address.port;
}

/** One process, once it answers. What it prints is told if it never does. */
async function serving(made: Omit<Served, "baseUrl">, port: number): Promise<ChildProcess> {
  const log = join(made.folder, "log");
  const output = openSync(log, "a");
  const server = spawn(made.dpdau, ["serve", "--port", String(port), "--workers", "1"], {
    cwd: made.folder,
    env: made.environment,
    stdio: ["ignore", output, output],
  });
  closeSync(output);
  for (let tries = 0; tries < 600 && server.exitCode === null; tries += 1) {
    const ready = await fetch(`http://127.0.0.1:${port}/readyz`).catch(() => undefined);
    if (ready?.ok) return server;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  await ended(server);
  throw new Error(`The server does not answer: ${await readFile(log, "utf-8")}`);
}

async function ended(server: ChildProcess): Promise<void> {
  if (server.exitCode !== null || server.signalCode !== null) return;
  const gone = once(server, "exit");
  server.kill("SIGTERM");
  const impatience = setTimeout(() => server.kill("SIGKILL"), 40_000);
  await gone;
  clearTimeout(impatience);
}
