/* One direction of a serial line that damages, drops, repeats and delays. Same seed, same damage. */
#ifndef OUTRIDER_LINE_H
#define OUTRIDER_LINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define LINE_BYTES 65536u
#define LINE_FRAME_BYTES 256u
#define LINE_FRAMES 16u

/* Chances per million: of bytes, for `duplicate` of frames, for `hold` of what is written at once. */
struct line_faults {
    uint32_t flip;
    uint32_t drop;
    uint32_t burst;
    uint32_t duplicate;
    uint32_t hold;     /* keeps it, and what comes after, for up to 150 ms */
    uint32_t delay_us; /* at most; in order */
    bool wrong_baud;
    bool unplugged;
};

struct line {
    uint64_t random;
    struct line_faults faults;
    uint8_t bytes[LINE_BYTES];
    uint64_t due_us[LINE_BYTES];
    size_t first;
    size_t held;
    uint64_t due_last_us;
    uint32_t burst_left;
    uint8_t frame[LINE_FRAME_BYTES];
    size_t frame_size;
    uint8_t past[LINE_FRAMES][LINE_FRAME_BYTES];
    size_t past_size[LINE_FRAMES];
    uint32_t frames;
    uint64_t damaged; /* bytes changed, lost or made up, and frames repeated */
};

void line_init(struct line *line, uint64_t seed);
uint64_t line_random(uint64_t *state);
void line_put(struct line *line, const uint8_t *data, size_t size, uint64_t now_us);
size_t line_get(struct line *line, uint8_t *data, size_t size, uint64_t now_us);

#endif
