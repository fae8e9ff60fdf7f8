/* The board in virtual time: records on standard input, what it did on standard output. Deterministic. */
#define _POSIX_C_SOURCE 200809L
#include "host.h"

#include <stdlib.h>
#include <string.h>

#define STEP_US 1000u
#define RECORD_MAX_BYTES 65536u

static struct core core;
static uint64_t next_step_us = STEP_US;

/* Seen from outside: what the core did since it was last looked at. */
static struct {
    uint32_t executed;
    enum outrider_state state;
    bool asked; /* wheels are asked to turn */
    bool enabled; /* the bridges are on */
} seen;

static void emit(char kind, const void *data, uint32_t size)
{
    (void)fputc(kind, stdout);
    (void)fwrite(&host.now_us, sizeof host.now_us, 1u, stdout);
    (void)fwrite(&size, sizeof size, 1u, stdout);
    (void)fwrite(data, 1u, size, stdout);
}

static void look(void)
{
    const bool asked = host.wanted_radps[0] != 0.0f || host.wanted_radps[1] != 0.0f;

    if (core.counts.commands_executed != seen.executed) {
        uint8_t done[12];
        memcpy(done, &core.sequence_executed, 4u);
        memcpy(done + 4u, &core.target_mps, 4u);
        memcpy(done + 8u, &core.target_radps, 4u);
        seen.executed = core.counts.commands_executed;
        emit('E', done, sizeof done);
    }
    if (core.state != seen.state) {
        const uint8_t now[2] = {(uint8_t)core.state, (uint8_t)core.stop_reason};
        seen.state = core.state;
        emit('S', now, sizeof now);
    }
    if (asked != seen.asked) {
        const uint8_t now = asked ? 1u : 0u;
        seen.asked = asked;
        emit('W', &now, sizeof now);
    }
    if (host.enabled != seen.enabled) {
        const uint8_t now = host.enabled ? 1u : 0u;
        seen.enabled = host.enabled;
        emit('P', &now, sizeof now);
    }
}

static void boot(void)
{
    host.boots++;
    host.restart_wanted = false;
    core_init(&core);
    seen.executed = 0u;
    look();
}

static void exchange(void)
{
    uint8_t bytes[512];
    size_t size;

    while ((size = line_get(&host.to_board, bytes, sizeof bytes, host.now_us)) > 0u) {
        for (size_t i = 0u; i < size; i++) {
            core_receive(&core, &bytes[i], 1u, host.now_us); /* one by one: every command is seen */
            if (bytes[i] == 0u) {
                look();
            }
        }
    }
    line_put(&host.to_host, host.tx, host.tx_size, host.now_us);
    host.tx_size = 0u;
    while ((size = line_get(&host.to_host, bytes, sizeof bytes, host.now_us)) > 0u) {
        emit('T', bytes, (uint32_t)size);
    }
}

static void advance(uint64_t until_us)
{
    while (next_step_us <= until_us) {
        host.now_us = next_step_us;
        next_step_us += STEP_US;
        exchange();
        core_step(&core, host.now_us);
        look();
        if (host.restart_wanted) {
            boot();
        }
    }
    host.now_us = until_us > host.now_us ? until_us : host.now_us;
    exchange();
}

int host_replay(int count, char **arguments)
{
    static uint8_t data[RECORD_MAX_BYTES + 1u];
    uint8_t kind;
    uint64_t time_us;
    uint32_t size;
    const uint64_t seed = count > 0 ? strtoull(arguments[0], NULL, 10) : 1u;

    host.virtual_time = true;
    host_flash_blank();
    line_init(&host.to_board, seed);
    line_init(&host.to_host, seed + 1u);
    if (count > 1 && !host_read_key(arguments[1])) {
        return 2;
    }
    core_init(&core);
    while (fread(&kind, 1u, 1u, stdin) == 1u && fread(&time_us, sizeof time_us, 1u, stdin) == 1u
           && fread(&size, sizeof size, 1u, stdin) == 1u) {
        if (size > RECORD_MAX_BYTES || fread(data, 1u, size, stdin) != size) {
            return 2;
        }
        data[size] = 0u;
        advance(time_us);
        if (kind == 'B') {
            line_put(&host.to_board, data, size, host.now_us);
            exchange();
        } else if (kind == 'C' && !host_command((char *)data)) {
            return 2;
        } else if (kind == 'F') {
            const uint64_t damaged[2] = {host.to_board.damaged, host.to_host.damaged};
            emit('D', damaged, sizeof damaged);
            (void)fflush(stdout);
        }
    }
    free(host.flash);
    return 0;
}
