import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    include: ["test/**/*.test.ts"],
    globalSetup: "test/server.ts",
    testTimeout: 120_000, // only a hang makes it end
    hookTimeout: 120_000,
    expect: { requireAssertions: true },
  },
});
