BEGIN TRANSACTION;
CREATE TABLE approval (
    plan_digest TEXT NOT NULL REFERENCES plan (plan_digest), person TEXT NOT NULL, paper BLOB NOT NULL,
    PRIMARY KEY (plan_digest, person)) STRICT;
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY, wall_ns INTEGER NOT NULL, rollout INTEGER NOT NULL, who TEXT NOT NULL,
    body TEXT NOT NULL, previous TEXT NOT NULL, hash TEXT NOT NULL) STRICT;
INSERT INTO "audit" VALUES(1,5,0,'anna','{"type":"Left","robot":"robot_1"}','0000000000000000000000000000000000000000000000000000000000000000','5c7bafd9f681aa229b68c56b54e56a3923933d8af9f801846e6c9e103302e672');
CREATE TABLE member (
    key TEXT PRIMARY KEY, role TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL, card BLOB NOT NULL,
    since_wall_ns INTEGER NOT NULL) STRICT;
INSERT INTO "member" VALUES('key','robot','robot_9','in',X'63617264',2);
CREATE TABLE plan (
    plan_digest TEXT PRIMARY KEY, plan BLOB NOT NULL, seen_wall_ns INTEGER NOT NULL) STRICT;
CREATE TABLE release (
    id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, policy_name TEXT NOT NULL, version TEXT NOT NULL,
    release_counter INTEGER NOT NULL, size_bytes INTEGER NOT NULL, released_wall_ns INTEGER NOT NULL,
    UNIQUE (policy_name, release_counter)) STRICT;
INSERT INTO "release" VALUES(7,'d','routing','v1',4,9,0);
CREATE TABLE robot (
    robot TEXT PRIMARY KEY, active_digest TEXT NOT NULL, active_version TEXT NOT NULL, log_id TEXT NOT NULL,
    seen_wall_ns INTEGER NOT NULL) STRICT;
CREATE TABLE rollout (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    plan_digest TEXT NOT NULL UNIQUE REFERENCES plan (plan_digest)) STRICT;
CREATE TABLE token (
    token TEXT PRIMARY KEY, robot TEXT NOT NULL, voucher BLOB NOT NULL, issued_by TEXT NOT NULL,
    expires_wall_ns INTEGER NOT NULL, binding BLOB NOT NULL) STRICT;
CREATE TABLE trip (
    robot TEXT NOT NULL, log_id TEXT NOT NULL, first_seq INTEGER NOT NULL, last_seq INTEGER NOT NULL,
    began_wall_ns INTEGER NOT NULL, trip BLOB NOT NULL, PRIMARY KEY (robot, log_id, first_seq)) STRICT;
CREATE TABLE witness (
    plan_digest TEXT NOT NULL, stage INTEGER NOT NULL, robot TEXT NOT NULL, paper BLOB NOT NULL,
    PRIMARY KEY (plan_digest, stage, robot)) STRICT;
CREATE INDEX audit_rollout ON audit (rollout, seq);
CREATE INDEX trip_time ON trip (robot, began_wall_ns);
DELETE FROM "sqlite_sequence";
COMMIT;
