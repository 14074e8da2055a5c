"""The tables of a study's store, as steps from those of an older lawkit."""

from __future__ import annotations

_RUNS = """
CREATE TABLE study (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE runs (
    run_id TEXT PRIMARY KEY,
    origin TEXT NOT NULL,            -- spec: the study's file asks for it; otherwise who proposed it
    state TEXT NOT NULL CHECK (state IN ('proposed', 'running', 'done', 'failed')),
    spec TEXT NOT NULL,              -- JSON, what the worker is given
    size TEXT NOT NULL,
    n_params INTEGER NOT NULL,       -- non-embedding
    n_tokens INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    flops REAL NOT NULL,             -- of all matrix products, attention and output layer included
    flops_6nd REAL NOT NULL,
    proposed_at REAL NOT NULL,       -- times in seconds since 1970
    started_at REAL,
    ended_at REAL,
    wall_s REAL,                     -- of training, without the start of the process
    cpu_s REAL,
    pid INTEGER,
    log TEXT,
    reason TEXT,                     -- of a failed run
    message TEXT,
    step INTEGER,                    -- where it ended
    result TEXT                      -- JSON of a finished run: done and evals, as its records have them
);
CREATE TABLE failures (
    run_id TEXT NOT NULL REFERENCES runs,
    at REAL NOT NULL,
    reason TEXT NOT NULL,
    message TEXT NOT NULL,
    step INTEGER NOT NULL
);
CREATE VIEW losses AS
    SELECT run_id,
        json_extract(eval.value, '$.step') AS step,
        json_extract(eval.value, '$.n_tokens') AS n_tokens,
        json_extract(eval.value, '$.is_final') AS is_final,
        domain.key AS domain,
        json_extract(domain.value, '$.loss') AS loss,
        json_extract(domain.value, '$.se') AS se,
        json_extract(domain.value, '$.per_byte') AS per_byte,
        json_extract(domain.value, '$.per_byte_se') AS per_byte_se
    FROM runs, json_each(runs.result, '$.evals') AS eval, json_each(eval.value, '$.domains') AS domain
    WHERE runs.state = 'done';
CREATE VIEW weights AS
    SELECT run_id, weight.key AS source, weight.value AS weight FROM runs, json_each(runs.spec, '$.weights') AS weight
"""

_ROUNDS = """
ALTER TABLE runs ADD COLUMN round INTEGER NOT NULL DEFAULT 0;
CREATE TABLE rounds (
    round INTEGER PRIMARY KEY,       -- 0: the start; runs.round names the one that proposed a run
    begun_at REAL NOT NULL,
    proposal TEXT NOT NULL,          -- JSON: how its runs were chosen
    basis TEXT,                      -- checksum of what the rest depends on: the finished runs and the question
    fit TEXT,                        -- JSON: the law, its errors, its warnings
    decision TEXT,                   -- JSON: the mixture, its intervals, its certificate, the expected regret
    flops REAL,                      -- of all runs up to the decision
    decided_at REAL,
    stop TEXT                        -- why no round follows; NULL where one does
)
"""

#: Each leads from the tables of the version before to the next; versions count from 0, no tables.
STEPS = (_RUNS, _ROUNDS)
VERSION = len(STEPS)
