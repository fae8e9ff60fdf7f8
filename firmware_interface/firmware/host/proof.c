/* The core under stress: differential codec, fuzz, power cuts. */
#define _POSIX_C_SOURCE 200809L
#include "host.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Records of u16 length and bytes on standard input; for each on standard output the verdict and the same frame encoded
   again: u8 verdict, u16 length, bytes. What is out of range or unknown is read all the same, and must not be encoded. */
int host_codec(void)
{
    static uint8_t encoded[65536];
    uint8_t wire[FRAMING_WIRE_MAX_BYTES];
    struct outrider_frame frame;
    uint16_t size;

    while (fread(&size, sizeof size, 1u, stdin) == 1u) {
        if (fread(encoded, 1u, size, stdin) != size) {
            return 2;
        }
        /* An empty one as a transport that keeps messages would bring it. */
        const uint8_t verdict = (uint8_t)(size == 0u ? outrider_decode(encoded, 0u, &frame)
                                                     : framing_decode(encoded, size, &frame));
        const bool read = verdict == OUTRIDER_VERDICT_GOOD || verdict == OUTRIDER_VERDICT_OUT_OF_RANGE
            || verdict == OUTRIDER_VERDICT_UNKNOWN_CODE;
        const uint16_t again = read ? (uint16_t)framing_encode(&frame, wire) : 0u;
        (void)fwrite(&verdict, 1u, 1u, stdout);
        (void)fwrite(&again, sizeof again, 1u, stdout);
        (void)fwrite(wire, 1u, again, stdout);
    }
    return 0;
}

static void sign(struct outrider_update_begin *begin)
{
    struct update_image image = {.version = begin->version, .size = begin->size};
    uint8_t message[UPDATE_SIGNED_BYTES];

    memcpy(image.digest, begin->digest, sizeof image.digest);
    update_signed(&image, message);
    host_sign(message, sizeof message, begin->signature);
}

/* A frame of any kind with any bits in its fields, and the right length, code and CRC: gets past the checksum. */
static size_t any_frame(uint64_t *random, uint32_t session, uint8_t *wire)
{
    static const uint8_t codes[] = {0x01, 0x02, 0x10, 0x11, 0x12, 0x13, 0x14, 0x20, 0x21,
                                    0x28, 0x29, 0x30, 0x31, 0x32, 0x33, 0x40, 0x50};
    struct outrider_frame frame;
    uint8_t raw[OUTRIDER_RAW_MAX_BYTES];
    const uint8_t code = codes[line_random(random) % sizeof codes];

    raw[0] = code;
    for (size_t i = 1u; i < sizeof raw; i++) {
        raw[i] = line_random(random) % 3u == 0u ? 0u : (uint8_t)(line_random(random) & 0xFFu);
    }
    for (size_t size = 1u; size < sizeof raw; size++) {
        const enum outrider_verdict verdict = outrider_decode(raw, size, &frame);
        if (verdict == OUTRIDER_VERDICT_WRONG_LENGTH) {
            continue;
        }
        if (verdict == OUTRIDER_VERDICT_GOOD && outrider_is_ordered(code) && line_random(random) % 4u != 0u) {
            static uint32_t sequence;
            frame.as.disarm.session = session;
            frame.as.disarm.sequence = ++sequence;
            if (code == OUTRIDER_CODE_VELOCITY_COMMAND || code == OUTRIDER_CODE_ARM) {
                frame.as.arm.sent_us = (uint32_t)host.now_us;
            }
        }
        if (verdict == OUTRIDER_VERDICT_GOOD && code == OUTRIDER_CODE_UPDATE_BEGIN && line_random(random) % 2u == 0u) {
            sign(&frame.as.update_begin); /* else it would never get to writing */
        }
        if (verdict == OUTRIDER_VERDICT_GOOD && code == OUTRIDER_CODE_HELLO && line_random(random) % 2u == 0u) {
            frame.as.hello.schema = OUTRIDER_SCHEMA_HASH;
        }
        return verdict == OUTRIDER_VERDICT_GOOD ? framing_encode(&frame, wire) : 0u;
    }
    return 0u;
}

/* `fuzz SEED BYTES`: noise, damaged frames and valid frames with any content, into the whole core, step after step. */
int host_fuzz(int count, char **arguments)
{
    static struct core core;
    uint8_t wire[FRAMING_WIRE_MAX_BYTES];
    uint8_t frame_signature[SIGNATURE_BYTES];
    uint64_t random = count > 0 ? strtoull(arguments[0], NULL, 10) : 1u;
    const uint64_t bytes = count > 1 ? strtoull(arguments[1], NULL, 10) : 1000000u;
    uint64_t fed = 0u;
    uint64_t armed = 0u;
    uint64_t good = 0u;

    host.virtual_time = true;
    host_flash_blank();
    host_sign(wire, 0u, frame_signature); /* the board trusts the fuzzer's key */
    core_init(&core);
    while (fed < bytes) {
        size_t size = any_frame(&random, core.session, wire);
        const uint64_t choice = line_random(&random) % 8u;
        if (size == 0u || choice == 0u) {
            size = 1u + (size_t)(line_random(&random) % sizeof wire);
            for (size_t i = 0u; i < size; i++) {
                wire[i] = (uint8_t)(line_random(&random) & 0xFFu);
            }
        } else if (choice == 1u) {
            wire[line_random(&random) % size] ^= (uint8_t)(1u << (line_random(&random) % 8u));
        } else if (choice == 2u) {
            size -= (size_t)(line_random(&random) % size);
        }
        core_receive(&core, wire, size, host.now_us);
        fed += size;
        host.now_us += line_random(&random) % 3000u;
        core_step(&core, host.now_us);
        armed += core.state == OUTRIDER_STATE_ARMED ? 1u : 0u;
        host.tx_size = 0u;
        if (host.restart_wanted || line_random(&random) % 4096u == 0u) {
            host.restart_wanted = false;
            host.boots++;
            good += core.counts.frames_good;
            core_init(&core);
        }
    }
    good += core.counts.frames_good;
    printf("{\"bytes\": %" PRIu64 ", \"frames_good\": %" PRIu64 ", \"armed_steps\": %" PRIu64 "}\n", fed, good,
           armed);
    free(host.flash);
    return 0;
}

/* One whole update of `size` bytes to `version`; false when it did not get through. */
static bool install(uint32_t version, uint32_t size)
{
    struct update update;
    struct outrider_update_begin begin = {.version = version, .size = size};
    struct outrider_update_block block;
    struct sha256 hash;
    enum outrider_result result = OUTRIDER_RESULT_OK;

    sha256_begin(&hash);
    for (uint32_t i = 0u; i < size; i++) {
        const uint8_t byte = (uint8_t)((i * 7u + version * 13u) & 0xFFu);
        sha256_add(&hash, &byte, 1u);
    }
    sha256_end(&hash, begin.digest);
    sign(&begin);
    update_boot(&update);
    if (update_begin(&update, &begin) != OUTRIDER_RESULT_OK) {
        return false;
    }
    while (update.offset < size) {
        const uint32_t left = size - update.offset;
        memset(&block, 0, sizeof block);
        block.offset = update.offset;
        block.length = (uint8_t)(left < OUTRIDER_UPDATE_BLOCK_BYTES ? left : OUTRIDER_UPDATE_BLOCK_BYTES);
        for (uint32_t i = 0u; i < block.length; i++) {
            block.data[i] = (uint8_t)(((block.offset + i) * 7u + version * 13u) & 0xFFu);
        }
        if (update_block(&update, &block) != OUTRIDER_RESULT_OK) {
            return false;
        }
    }
    if (update_verify(&update) != OUTRIDER_RESULT_OK) {
        return false;
    }
    while (!update_step(&update, &result)) {
    }
    return result == OUTRIDER_RESULT_OK && update_switch(&update) == OUTRIDER_RESULT_OK;
}

struct cuts {
    uint64_t cuts;
    uint64_t old; /* the image before ran on */
    uint64_t wrong;
};

/* `version` is being installed over the one before it, and the power fails at the `at`-th byte that is erased or written.
   Afterwards the one before must run, or this one when its record was whole; and the update must still get through.
   True when it got through without being cut. */
static bool cut_at(uint32_t version, uint32_t size, uint64_t at, struct cuts *cuts)
{
    struct update update;

    host_flash_blank();
    host.cut_after = UINT64_MAX;
    if (version > 2u && !install(version - 1u, size)) {
        cuts->wrong++;
        return true;
    }
    host.flash_written = 0u;
    host.cut_after = at;
    const bool through = install(version, size);
    host.powerless = false;
    host.cut_after = UINT64_MAX;
    update_boot(&update);
    const uint32_t runs = update.running.version;
    cuts->cuts += through ? 0u : 1u;
    cuts->old += runs == version - 1u ? 1u : 0u;
    cuts->wrong += (runs != version && (through || runs != version - 1u)) || update.slot != 1u - runs % 2u ? 1u : 0u;
    if (runs == version - 1u) {
        const bool again = install(version, size);
        update_boot(&update);
        cuts->wrong += again && update.running.version == version ? 0u : 1u;
    }
    return through;
}

/* `cut SIZE STRIDE`: at every STRIDE-th byte, of the first update in a board's life (whose key is stored then, too) and of
   one after it. */
int host_cut(int count, char **arguments)
{
    const uint32_t size = count > 0 ? (uint32_t)strtoul(arguments[0], NULL, 10) : 3000u;
    const uint64_t stride = count > 1 ? strtoull(arguments[1], NULL, 10) : 1u;
    struct cuts cuts = {0u, 0u, 0u};

    if (!host_signature_built()) {
        fprintf(stderr, "built without libsodium: it takes no update\n");
        return 2;
    }
    for (uint32_t version = 2u; version <= 3u; version++) {
        uint64_t at = 0u;
        while (!cut_at(version, size, at, &cuts)) {
            at += stride;
        }
    }
    printf("{\"cuts\": %" PRIu64 ", \"old_image_ran\": %" PRIu64 ", \"wrong\": %" PRIu64 "}\n", cuts.cuts, cuts.old,
           cuts.wrong);
    free(host.flash);
    return cuts.wrong == 0u ? 0 : 1;
}
