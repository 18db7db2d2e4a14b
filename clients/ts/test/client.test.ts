/** The client against a running server: what is typed is what comes. */

import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

import { beforeAll, describe, expect, expectTypeOf, inject, test } from "vitest";

import { createDpdauClient, dataOf, DpdauError, isProblem } from "../src/index.js";
import type { Event, Problem, Schemas } from "../src/index.js";
import { DAYS, dpdau, PEOPLE, WINDOW } from "./server.js";

const served = inject("served");
const client = createDpdauClient(served);
const [FIRST, , , , , LAST] = DAYS;
const NEXT = "2025-01-07"; // its number is not published

const events = (day: string, ...people: string[]): Event[] => people.map((user_id) => ({ user_id, op: "+", day }));

/** The problem of a request that is refused. */
function problemOf(answer: { error?: Problem; response: Response }): Problem {
  if (answer.error === undefined) throw new Error(`HTTP ${answer.response.status}, and no error`);
  return answer.error;
}

describe("events", () => {
  test("events that are posted are accepted", async () => {
    const taken = dataOf(await client.POST("/event", { body: { events: events(NEXT, "user-1", "user-2") } }));
    expectTypeOf(taken).toEqualTypeOf<Schemas["EventsTaken"]>();
    expectTypeOf(taken.ingested).toEqualTypeOf<number>();
    expectTypeOf(taken.rejected_by_reason).toEqualTypeOf<Record<string, number>>();
    expect(taken).toEqual({ ingested: 2, rejected: 0, rejected_by_reason: {} });
  });

  test("one event is accepted by itself", async () => {
    const answer = await client.POST("/event", { body: { event: { user_id: "user-1", day: NEXT } } });
    expect(answer.response.status).toBe(202);
    expect(dataOf(answer).ingested).toBe(1);
  });

  test("one bad row of several is explained by its place", async () => {
    const bad = { user_id: "user-2", day: "2025-02-30" };
    const { data } = await client.POST("/event", {
      params: { query: { explain: true } },
      body: { events: [...events(NEXT, "user-1"), bad] },
    });
    expectTypeOf(data?.errors).toEqualTypeOf<Schemas["BadEvent"][] | undefined>();
    expect(data).toMatchObject({ ingested: 1, rejected: 1, errors: [{ index: 1 }] });
    const reason = data?.errors?.[0]?.reason;
    expectTypeOf(reason).toEqualTypeOf<string | undefined>();
    expect(data?.rejected_by_reason).toEqual({ [reason ?? ""]: 1 });
  });

  test("lines of NDJSON are sent as they stand", async () => {
    const lines = events(NEXT, "user-1", "user-2", "user-3").map((event) => `${JSON.stringify(event)}\n`);
    const answer = await client.POST("/event", {
      body: lines.join(""),
      headers: { "Content-Type": "application/x-ndjson" },
    });
    expect(dataOf(answer).ingested).toBe(3);
  });

  test("events of which none is valid are a problem that names their fields", async () => {
    const answer = await client.POST("/event", { body: { events: [{ user_id: "", day: NEXT }] } });
    const problem = problemOf(answer);
    expect(problem.status).toBe(422);
    expectTypeOf(problem.errors).toEqualTypeOf<(Schemas["BrokenRule"] | Schemas["BadEvent"])[] | undefined>();
  });

  test("an Idempotency-Key that comes again is answered as it was", async () => {
    const post = (body: { events: Event[] }, key: string) =>
      client.POST("/event", { params: { header: { "Idempotency-Key": key } }, body });
    const key = randomUUID();
    const first = await post({ events: events(NEXT, "user-4", "user-5") }, key);
    const again = await post({ events: events(NEXT, "user-4", "user-5") }, key);
    expect(first.response.headers.get("Idempotency-Replayed")).toBeNull();
    expect(again.response.headers.get("Idempotency-Replayed")).toBe("true");
    expect(dataOf(again)).toEqual(dataOf(first));
    const other = problemOf(await post({ events: events(NEXT, "user-6") }, key));
    expect([other.status, other.code]).toEqual([422, "IdempotencyKeyReused"]);
  });
});

describe("numbers", () => {
  const near = (value: number) => {
    expect(value).toBeGreaterThan(PEOPLE - 25); // fifteen standard deviations of noise and more
    expect(value).toBeLessThan(PEOPLE + 25);
  };

  test("the DAU of a day is a number with its interval", async () => {
    const dau = dataOf(await client.GET("/dau/{day}", { params: { path: { day: LAST } } }));
    expectTypeOf(dau).toEqualTypeOf<Schemas["Number"]>();
    expectTypeOf(dau.noisy_value).toEqualTypeOf<number>();
    expectTypeOf(dau.estimate).toEqualTypeOf<number>();
    expectTypeOf(dau.lower_95).toEqualTypeOf<number>();
    expectTypeOf(dau.upper_95).toEqualTypeOf<number | null>();
    expectTypeOf(dau.metric).toEqualTypeOf<"dau" | "mau">();
    expectTypeOf(dau.privacy_unit).toEqualTypeOf<"user-month">();
    expectTypeOf(dau.published_at).toEqualTypeOf<string>();
    expectTypeOf(dau.private).toEqualTypeOf<boolean>();
    expectTypeOf(dau.budget.epsilon_remaining).toEqualTypeOf<number>();
    expect(dau).toMatchObject({ metric: "dau", day: LAST, window_days: 1, revision: 0, privacy_unit: "user-month" });
    expect(dau.private).toBe(true);
    expect(typeof dau.published_at).toBe("string");
    expect(dau.budget.epsilon_remaining).toBeLessThanOrEqual(dau.budget.epsilon_cap);
    near(dau.noisy_value);
    expect(dau.lower_95).toBeLessThanOrEqual(dau.estimate);
    expect(dau.upper_95).toBeGreaterThanOrEqual(dau.estimate);
  });

  test("the MAU of a window is found by its end", async () => {
    const mau = dataOf(await client.GET("/mau", { params: { query: { end: LAST, window: WINDOW } } }));
    expectTypeOf(mau.mechanism).toEqualTypeOf<Schemas["Row"]["mechanism"]>();
    expect(mau).toMatchObject({ metric: "mau", day: LAST, window_days: WINDOW, mechanism: "gaussian" });
    near(mau.noisy_value);
  });

  test("a series has a row for each day that is published", async () => {
    const query = { from: FIRST, to: NEXT };
    const rows = dataOf(await client.GET("/series/{metric}", { params: { path: { metric: "dau" }, query } }));
    expectTypeOf(rows).toEqualTypeOf<Schemas["Row"][]>();
    expectTypeOf(rows[0]).toEqualTypeOf<Schemas["Row"] | undefined>();
    expect(rows.map((row) => row.day)).toEqual([...DAYS]);
    rows.forEach((row) => near(row.noisy_value));
    const mau = dataOf(await client.GET("/series/{metric}", { params: { path: { metric: "mau" }, query } }));
    expect(mau.map((row) => row.day)).toEqual(DAYS.slice(WINDOW - 1));
  });

  test("a series comes as CSV to who accepts that", async () => {
    const { data, response } = await client.GET("/series/{metric}", {
      params: { path: { metric: "dau" }, query: { from: FIRST, to: LAST } },
      headers: { Accept: "text/csv" },
      parseAs: "text",
    });
    expectTypeOf(data).toEqualTypeOf<string | undefined>();
    expect(response.headers.get("Content-Type")).toMatch(/^text\/csv/);
    expect(data?.trim().split("\n")).toHaveLength(DAYS.length + 1);
  });

  test("the budget of a month says what is spent and what is left", async () => {
    const answer = await client.GET("/budget/{metric}", { params: { path: { metric: "mau" }, query: { day: LAST } } });
    const budget = dataOf(answer);
    expectTypeOf(budget).toEqualTypeOf<Schemas["Budget"]>();
    expectTypeOf(budget.month).toEqualTypeOf<string>();
    expectTypeOf(budget.charged.epsilon).toEqualTypeOf<number>();
    expect(budget).toMatchObject({ metric: "mau", month: "2025-01", epsilon_cap: 60, releases_made: 4 });
    expect(budget.epsilon_spent + budget.epsilon_remaining).toBeCloseTo(budget.epsilon_cap);
    expect(budget.charged.epsilon).toBeGreaterThan(0);
  });

  test("the label has the facts of both metrics", async () => {
    const label = dataOf(await client.GET("/label/{metric}", { params: { path: { metric: "joint" } } }));
    expectTypeOf(label).toEqualTypeOf<Schemas["Label"]>();
    expectTypeOf(label.facts.dau?.epsilon).toEqualTypeOf<number | undefined>();
    expectTypeOf(label.registry.schema).toEqualTypeOf<string>();
    expect(label.facts.mau).toMatchObject({ privacy_unit: "user-month", window_days: WINDOW });
    expect(label.facts.dau?.epsilon).toBeGreaterThan(0);
    expect(typeof label.registry.schema).toBe("string");
  });

  test("an answer that has not changed is 304 to who names its ETag", async () => {
    const params = { path: { day: LAST } };
    const first = await client.GET("/dau/{day}", { params });
    const etag = first.response.headers.get("ETag") ?? "";
    expect(etag).not.toBe("");
    const again = await client.GET("/dau/{day}", { params, headers: { "If-None-Match": etag } });
    expect(again.response.status).toBe(304);
    expect(again.data).toBeUndefined();
    const other = await client.GET("/dau/{day}", { params, headers: { "If-None-Match": '"another"' } });
    expect(dataOf(other)).toEqual(dataOf(first));
  });
});

describe("errors", () => {
  test("a number that does not exist is a typed problem with its code and a remedy", async () => {
    const today = new Date();
    const day = today.toISOString().slice(0, 10);
    const due = new Date(today.getTime() + 2 * 86_400_000).toISOString().slice(0, 10); // a day of grace
    const { data, error, response } = await client.GET("/dau/{day}", { params: { path: { day } } });
    expectTypeOf(error).toExtend<Problem | undefined>();
    expectTypeOf(error?.code).toEqualTypeOf<string | undefined>();
    expect(data).toBeUndefined();
    expect(response.headers.get("Content-Type")).toBe("application/problem+json");
    if (!isProblem(error)) throw new Error("no problem");
    expectTypeOf(error.never).toEqualTypeOf<boolean | undefined>();
    expectTypeOf(error.due).toEqualTypeOf<string | undefined>();
    expect(error).toMatchObject({ status: 404, code: "NotPublished", metric: "dau", day, never: false, due });
    expect(error.remedy).toContain("dpdau run");
    expect(error.type).toContain("#NotPublished");
  });

  test("dataOf throws a problem as an error", async () => {
    const answer = await client.GET("/mau", { params: { query: { end: NEXT } } });
    const thrown = catching(() => dataOf(answer));
    expectTypeOf(thrown.problem).toEqualTypeOf<Problem | undefined>();
    expect([thrown.status, thrown.problem?.code, thrown.retryAfter]).toEqual([404, "NotPublished", undefined]);
    expect(thrown.message).toContain(thrown.problem?.remedy ?? "nothing");
  });

  test("a wrong key is 401", async () => {
    const stranger = createDpdauClient({ ...served, apiKey: "0".repeat(40) });
    const problem = problemOf(await stranger.GET("/dau/{day}", { params: { path: { day: LAST } } }));
    expect([problem.status, problem.code]).toEqual([401, "Unauthorized"]);
  });

  test("a key without the scope is 403, and the scope is named", async () => {
    const reader = createDpdauClient({ ...served, apiKey: served.readKey });
    expect((await reader.GET("/dau/{day}", { params: { path: { day: LAST } } })).response.status).toBe(200);
    const problem = problemOf(await reader.POST("/event", { body: { events: events(NEXT, "user-1") } }));
    expectTypeOf(problem.scope).toEqualTypeOf<string | undefined>();
    expect([problem.status, problem.code, problem.scope]).toEqual([403, "Forbidden", "ingest"]);
  });

  test("what a proxy answers in place of the API is no problem, and an error all the same", async () => {
    const answering = (status: number, body: string, headers: Record<string, string>) =>
      createDpdauClient({ ...served, fetch: async () => new Response(body, { status, headers }) }).GET("/status");
    const page = catching(await answered(answering(502, "<h1>Bad gateway</h1>", { "Retry-After": "7" })));
    expect([page.status, page.problem, page.retryAfter]).toEqual([502, undefined, 7]);
    const words = { type: "t", title: "t", detail: "d", instance: "i", code: "c", remedy: "r" };
    for (const said of [{ code: "Elsewhere", status: 500 }, words, { ...words, status: "500" }, null]) {
      const other = catching(await answered(answering(500, JSON.stringify(said), {})));
      expect([other.status, other.problem, other.retryAfter]).toEqual([500, undefined, undefined]);
    }
    const known = catching(await answered(answering(500, JSON.stringify({ ...words, status: 500 }), {})));
    expect(known.problem?.code).toBe("c");
  });

  test("a redirection is refused, and the key goes nowhere else", async () => {
    const asked: string[] = [];
    const elsewhere = createServer((request, response) => {
      asked.push(request.url ?? "");
      response.writeHead(307, { Location: "/elsewhere" }).end();
    }).listen(0, "127.0.0.1");
    try {
      await once(elsewhere, "listening");
      const { port } = elsewhere.address() as AddressInfo;
      const sent = createDpdauClient({ ...served, baseUrl: `http://127.0.0.1:${port}` }).GET("/status");
      await expect(sent).rejects.toThrow(TypeError);
      expect(asked).toEqual(["/status"]);
    } finally {
      elsewhere.close();
    }
  });

  const answered = async (answer: Promise<Parameters<typeof dataOf>[0]>) => {
    const known = await answer;
    return () => dataOf(known);
  };

  function catching(reads: () => unknown): DpdauError {
    try {
      reads();
    } catch (error) {
      if (error instanceof DpdauError) return error;
      throw error;
    }
    throw new Error("Nothing was thrown.");
  }
});

describe("operation", () => {
  test("a day is declared complete, and the declaration is taken back", async () => {
    const params = { path: { day: NEXT } };
    const declared = dataOf(await client.POST("/complete/{day}", { params }));
    expectTypeOf(declared.complete).toEqualTypeOf<string[]>();
    expect(declared).toEqual({ complete: [NEXT] });
    const withdrawn = dataOf(await client.DELETE("/complete/{day}", { params }));
    expect(withdrawn).toEqual({ withdrawn: [NEXT] });
    const published = await client.DELETE("/complete/{day}", { params: { path: { day: LAST } } });
    expect(problemOf(published).status).toBe(409);
  });

  test("the status says how far publication has come", async () => {
    const status = dataOf(await client.GET("/status"));
    expectTypeOf(status.published).toEqualTypeOf<Schemas["PublishedSeries"][]>();
    expect(status.published.map((series) => series.last_day)).toEqual([LAST, LAST]);
  });
});

describe("an erasure", () => {
  let receipt: string;
  const read = async (verify?: boolean) => {
    const query = verify === undefined ? {} : { verify };
    return dataOf(await client.GET("/erasure/{receipt}", { params: { path: { receipt }, query } }));
  };

  beforeAll(async () => {
    const body = { user_id: "user-7", through: LAST, reference: "ticket-17" };
    const asked = dataOf(await client.POST("/erasure", { body }));
    expectTypeOf(asked).toEqualTypeOf<Schemas["RequestsTaken"]>();
    expectTypeOf(asked.receipts[0]).toEqualTypeOf<string | undefined>();
    expect(asked).toMatchObject({ received: 1, parked: false, references: ["ticket-17"], passed_over: [] });
    receipt = asked.receipts[0] ?? "";
  });

  test("a request is received, applied by flush-deletes, and verified", async () => {
    const waiting = await read();
    expectTypeOf(waiting).toEqualTypeOf<Schemas["Receipt"]>();
    expectTypeOf(waiting.state).toEqualTypeOf<"parked" | "received" | "applied" | "verified" | "cancelled">();
    expectTypeOf(waiting.signature).toEqualTypeOf<string | null>();
    expectTypeOf(waiting.scope.through).toEqualTypeOf<string>();
    expect(waiting).toMatchObject({ receipt, state: "received", verified: false, reference: "ticket-17" });
    expect(waiting.scope).toEqual({ through: LAST, days: [] });

    expect(await dpdau(served, "flush-deletes")).toMatchObject({ verified: 1 });

    const written = await read();
    const readBack = await read(true);
    for (const verified of [written, readBack]) {
      expect(verified).toMatchObject({ receipt, state: "verified", verified: true, survivors: [] });
      expect(verified.signature).toMatch(/^[0-9a-f]+$/);
      expectTypeOf(verified.remains[0]?.until).toEqualTypeOf<string | null | undefined>();
      expect(verified.remains.map((remains) => remains.what)).toContain("published noisy numbers");
    }
    expectTypeOf(readBack.survivors).toEqualTypeOf<Schemas["Survivor"][]>();
    expectTypeOf(readBack.partitions).toEqualTypeOf<Schemas["Partition"][] | undefined>();
    expect(readBack.partitions?.map((partition) => partition.day)).toEqual(expect.arrayContaining([...DAYS]));
    expect(readBack.partitions?.map((partition) => partition.membership)).not.toContain("present");
  });

  test("the requests are listed with their deadlines", async () => {
    const listed = dataOf(await client.GET("/erasure", { params: { query: { limit: 10 } } }));
    expectTypeOf(listed).toEqualTypeOf<Schemas["ErasureRequest"][]>();
    expect(listed.map((request) => request.receipt)).toContain(receipt);
    expect(listed.every((request) => request.received_on < request.deadline)).toBe(true);
  });

  test("what is erased already cannot be cancelled", async () => {
    const fresh = dataOf(await client.POST("/erasure", { body: [{ user_id: "user-8", days: [FIRST] }] }));
    const path = { receipt: fresh.receipts[0] ?? "" };
    const cancelled = dataOf(await client.POST("/erasure/{receipt}/cancel", { params: { path } }));
    expect(cancelled).toMatchObject({ cancelled: 1, erasures: [{ state: "cancelled", scope: { days: [FIRST] } }] });
    const refused = problemOf(await client.POST("/erasure/{receipt}/cancel", { params: { path: { receipt } } }));
    expect(refused.status).toBe(409);
    const unknown = await client.GET("/erasure/{receipt}", { params: { path: { receipt: "0".repeat(16) } } });
    expect([problemOf(unknown).status, problemOf(unknown).code]).toEqual([404, "UnknownReceipt"]);
  });
});
