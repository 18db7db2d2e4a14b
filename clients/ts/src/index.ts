/**
 * A client of dpdau's HTTP API. The paths, what they take and what they answer are typed from its OpenAPI document;
 * here is what openapi-fetch lacks: the key, and errors as typed values.
 */

import createClient, { type Client } from "openapi-fetch";

import type { components, operations, paths } from "./schema.js";

export type { components, operations, paths } from "./schema.js";

export type Schemas = components["schemas"];

/** An error as RFC 9457 has it: `code` is for machines, `detail` and `remedy` are for people. */
export type Problem = Schemas["Problem"];

type EventBody = operations["postEvents"]["requestBody"]["content"]["application/json"];
export type Event = Extract<EventBody, { event: unknown }>["event"];

type ErasureBody = operations["postErasures"]["requestBody"]["content"]["application/json"];
export type ErasureAsked = Extract<ErasureBody, { erasure: unknown }>["erasure"];

/** Answers are typed by their JSON. For CSV and Arrow send `Accept`, and say `parseAs`. */
export type DpdauClient = Client<paths, "application/json" | "application/problem+json">;

export interface DpdauClientOptions {
  /** Where `dpdau serve` answers, such as `http://127.0.0.1:8000`. */
  baseUrl: string;
  /** A key that has the scopes of the routes that are called. */
  apiKey: string;
  /** Used in place of the global fetch, to retry or to trace, for example. */
  fetch?: (request: Request) => Promise<Response>;
}

/**
 * Makes a client: `client.GET("/dau/{day}", { params: { path: { day: "2025-10-01" } } })`.
 *
 * A body that is text is sent as it stands: give NDJSON its header `Content-Type: application/x-ndjson`.
 */
export function createDpdauClient({ baseUrl, apiKey, fetch }: DpdauClientOptions): DpdauClient {
  return createClient<paths, "application/json" | "application/problem+json">({
    baseUrl,
    headers: { "X-API-Key": apiKey },
    redirect: "error", // the API redirects nobody, and the key goes nowhere else
    bodySerializer: (body) => (typeof body === "string" ? body : JSON.stringify(body)),
    ...(fetch && { fetch }),
  });
}

/** Whether what came back is a problem of the API. A proxy in between may answer something else. */
export function isProblem(value: unknown): value is Problem {
  if (typeof value !== "object" || value === null) return false;
  const said = value as Record<string, unknown>;
  const words = ["type", "title", "detail", "instance", "code", "remedy"];
  return typeof said["status"] === "number" && words.every((name) => typeof said[name] === "string");
}

/** An answer that is no success. */
export class DpdauError extends Error {
  override readonly name = "DpdauError";
  readonly status: number;
  /** What the API says of it; undefined for an answer that is not the API's, and for 304. */
  readonly problem: Problem | undefined;
  /** Seconds to wait before the request is sent again; undefined where that would not help. */
  readonly retryAfter: number | undefined;

  constructor(response: Response, error: unknown) {
    const problem = isProblem(error) ? error : undefined;
    super(problem ? `${problem.code}: ${problem.detail} ${problem.remedy}` : `HTTP ${response.status}, and no problem`);
    this.status = response.status;
    this.problem = problem;
    const seconds = response.headers.get("Retry-After");
    this.retryAfter = seconds !== null && /^\d+$/.test(seconds) ? Number(seconds) : undefined;
  }
}

/** The data of an answer. Throws DpdauError for every other one. */
export function dataOf<T>(answer: { data?: T; error?: unknown; response: Response }): T {
  if (!answer.response.ok) throw new DpdauError(answer.response, answer.error);
  return answer.data as T;
}
