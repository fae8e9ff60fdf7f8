/* What a person or a test may ask of the emulated board, one line of text each. */
#define _POSIX_C_SOURCE 200809L
#include "host.h"

#include <stdlib.h>
#include <string.h>

static bool set_fault(struct line_faults *faults, const char *key, uint32_t value)
{
    if (strcmp(key, "flip") == 0) {
        faults->flip = value;
    } else if (strcmp(key, "drop") == 0) {
        faults->drop = value;
    } else if (strcmp(key, "burst") == 0) {
        faults->burst = value;
    } else if (strcmp(key, "duplicate") == 0) {
        faults->duplicate = value;
    } else if (strcmp(key, "hold") == 0) {
        faults->hold = value;
    } else if (strcmp(key, "delay_us") == 0) {
        faults->delay_us = value;
    } else if (strcmp(key, "wrong_baud") == 0) {
        faults->wrong_baud = value != 0u;
    } else if (strcmp(key, "unplugged") == 0) {
        faults->unplugged = value != 0u;
    } else {
        return false;
    }
    return true;
}

/* "line flip=100 drop=20": both directions; what is not named is none. */
static bool set_line(char *rest)
{
    struct line_faults faults = {0};
    char *state = NULL;

    for (char *word = strtok_r(rest, " ", &state); word != NULL; word = strtok_r(NULL, " ", &state)) {
        char *value = strchr(word, '=');
        if (value == NULL) {
            return false;
        }
        *value++ = '\0';
        if (!set_fault(&faults, word, (uint32_t)strtoul(value, NULL, 10))) {
            return false;
        }
    }
    host.to_board.faults = faults;
    host.to_host.faults = faults;
    return true;
}

/* "40": both; "40 0": left and right. */
static void set_wheels(float wheels[2], char *rest)
{
    wheels[0] = strtof(rest, &rest);
    wheels[1] = *rest == '\0' ? wheels[0] : strtof(rest, NULL);
}

bool host_read_key(const char *text)
{
    host.key_there = strlen(text) == 2u * sizeof host.key;
    for (size_t i = 0u; i < sizeof host.key && host.key_there; i++) {
        const char pair[3] = {text[2u * i], text[2u * i + 1u], '\0'};
        char *end;
        host.key[i] = (uint8_t)strtoul(pair, &end, 16);
        host.key_there = end == pair + 2;
    }
    return host.key_there;
}

bool host_command(char *text)
{
    char *state = NULL;
    const char *verb = strtok_r(text, " ", &state);
    char *rest = strtok_r(NULL, "", &state);

    if (verb == NULL) {
        return true;
    }
    if (strcmp(verb, "line") == 0) {
        char none[1] = "";
        return set_line(rest == NULL ? none : rest);
    }
    if (rest == NULL) {
        return false;
    }
    if (strcmp(verb, "estop") == 0) {
        host.forced.emergency_stop = atoi(rest) != 0;
    } else if (strcmp(verb, "bumper") == 0) {
        host.forced.bumpers = (unsigned)strtoul(rest, NULL, 10);
    } else if (strcmp(verb, "battery") == 0) {
        host.forced.battery_v = strtof(rest, NULL);
    } else if (strcmp(verb, "current") == 0) {
        set_wheels(host.forced.current_a, rest);
    } else if (strcmp(verb, "push") == 0) {
        set_wheels(host.forced.push_radps, rest);
    } else if (strcmp(verb, "silent") == 0) {
        host.forced.silent = atoi(rest) != 0;
    } else if (strcmp(verb, "imu") == 0) {
        const float value = strtof(rest, &rest); /* then an axis: acceleration x, y, z, turn rate x, y, z */
        const unsigned long axis = strtoul(rest, NULL, 10) % 6u;
        (axis < 3u ? host.plant.acceleration_mps2 : host.plant.turn_rate_radps)[axis % 3u] = value;
    } else if (strcmp(verb, "name") == 0 && strlen(rest) < sizeof host.name) {
        memcpy(host.name, rest, strlen(rest) + 1u);
    } else if (strcmp(verb, "flash") == 0) {
        host.powerless = atoi(rest) == 0; /* its memory does not answer; all else goes on */
    } else if (strcmp(verb, "restart") == 0) {
        host.restart_wanted = true;
    } else if (strcmp(verb, "cut") == 0) {
        host.cut_after = host.flash_written + strtoull(rest, NULL, 10);
        host.cut_ends_process = true;
    } else {
        return false;
    }
    return true;
}
