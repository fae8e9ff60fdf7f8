#include "line.h"

#include <string.h>

#define MILLION 1000000u
#define BURST_BYTES_MAX 64u
#define HOLD_MAX_US 150000u

/* SplitMix64 (Steele, Lea, Flood 2014). */
uint64_t line_random(uint64_t *state)
{
    uint64_t z = (*state += 0x9E3779B97F4A7C15u);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static bool happens(struct line *line, uint32_t per_million)
{
    return per_million != 0u && line_random(&line->random) % MILLION < per_million;
}

void line_init(struct line *line, uint64_t seed)
{
    memset(line, 0, sizeof *line);
    line->random = seed;
}

static void push(struct line *line, uint8_t byte, uint64_t due_us)
{
    if (line->held == LINE_BYTES) {
        line->damaged++;
        return;
    }
    const size_t at = (line->first + line->held++) % LINE_BYTES;
    line->bytes[at] = byte;
    line->due_us[at] = due_us;
}

static void push_damaged(struct line *line, uint8_t byte, uint64_t due_us)
{
    const struct line_faults *faults = &line->faults;

    if (line->burst_left == 0u && happens(line, faults->burst)) {
        line->burst_left = 1u + (uint32_t)(line_random(&line->random) % BURST_BYTES_MAX);
    }
    if (line->burst_left > 0u || faults->wrong_baud) {
        line->burst_left -= line->burst_left > 0u ? 1u : 0u;
        byte = (uint8_t)(line_random(&line->random) & 0xFFu);
        line->damaged++;
    } else if (happens(line, faults->flip)) {
        byte ^= (uint8_t)(1u << (line_random(&line->random) % 8u));
        line->damaged++;
    }
    if (happens(line, faults->drop)) {
        line->damaged++;
        return;
    }
    push(line, byte, due_us);
}

/* Keep whole frames, and now and then deliver an old one again. */
static void remember(struct line *line, uint8_t byte, uint64_t due_us)
{
    if (line->frame_size < LINE_FRAME_BYTES) {
        line->frame[line->frame_size++] = byte;
    }
    if (byte != 0u) {
        return;
    }
    const size_t slot = line->frames++ % LINE_FRAMES;
    memcpy(line->past[slot], line->frame, line->frame_size);
    line->past_size[slot] = line->frame_size;
    line->frame_size = 0u;
    if (happens(line, line->faults.duplicate)) {
        const size_t count = line->frames < LINE_FRAMES ? line->frames : LINE_FRAMES;
        const size_t chosen = (size_t)(line_random(&line->random) % count);
        for (size_t i = 0u; i < line->past_size[chosen]; i++) {
            push(line, line->past[chosen][i], due_us);
        }
        line->damaged++;
    }
}

void line_put(struct line *line, const uint8_t *data, size_t size, uint64_t now_us)
{
    uint64_t due_us = now_us;

    if (line->faults.unplugged) {
        line->damaged += size;
        return;
    }
    if (line->faults.delay_us != 0u) {
        due_us += line_random(&line->random) % line->faults.delay_us;
    }
    if (happens(line, line->faults.hold)) {
        due_us += line_random(&line->random) % HOLD_MAX_US;
        line->damaged++;
    }
    due_us = due_us < line->due_last_us ? line->due_last_us : due_us;
    line->due_last_us = due_us;
    for (size_t i = 0u; i < size; i++) {
        push_damaged(line, data[i], due_us);
        remember(line, data[i], due_us);
    }
}

size_t line_get(struct line *line, uint8_t *data, size_t size, uint64_t now_us)
{
    size_t count = 0u;

    while (count < size && line->held > 0u && line->due_us[line->first] <= now_us) {
        data[count++] = line->bytes[line->first];
        line->first = (line->first + 1u) % LINE_BYTES;
        line->held--;
    }
    return count;
}
