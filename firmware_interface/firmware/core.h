/* The motor controller: state machine, watchdog, faults. One instance, no memory but this, nothing waits. */
#ifndef OUTRIDER_CORE_H
#define OUTRIDER_CORE_H

#include "framing.h"
#include "hal.h"
#include "motion.h"
#include "parameters.h"
#include "update.h"

struct core_counts {
    uint32_t commands_executed;
    uint32_t commands_stale;
    uint32_t commands_repeated;
    uint32_t commands_refused;
    uint32_t frames_good;
    uint32_t frames_bad;
    uint32_t frames_unsent;
};

enum core_feed { CORE_FEED_STATUS, CORE_FEED_WHEELS, CORE_FEED_IMU, CORE_FEED_BATTERY, CORE_FEED_BUMPER,
                 CORE_FEED_HEARTBEAT, CORE_FEEDS };

struct core {
    struct framing_reader reader;
    uint32_t session;
    uint32_t sessions; /* opened since the start */
    uint32_t boots;
    uint32_t nonce;
    uint32_t sequence_last;
    uint64_t heard_us;

    enum outrider_state state;
    enum outrider_stop_reason stop_reason;
    uint32_t faults;
    uint64_t deadline_us; /* of the command being executed */
    uint64_t stopping_since_us;
    uint64_t moving_us; /* last seen moving */
    uint64_t voltage_good_us;
    uint64_t current_good_us;

    float target_mps;
    float target_radps;
    uint32_t sequence_executed;
    struct motion_axis linear;
    struct motion_axis angular;
    struct motion_wheel wheels[2];
    float wanted_radps[2];
    struct hal_sensors sensors;
    uint64_t stepped_us;

    struct parameters parameters;
    struct update update;
    uint32_t verify_sequence;
    bool restarting;

    struct core_counts counts;
    uint64_t due_us[CORE_FEEDS];
    uint32_t heartbeats;
    bool announce; /* send status at once */
    uint8_t inputs_sent;
};

void core_init(struct core *core);
void core_receive(struct core *core, const uint8_t *data, size_t size, uint64_t now_us);

/* Every millisecond. */
void core_step(struct core *core, uint64_t now_us);

/* Of the parts of the core, for each other: */
struct outrider_frame core_blank(uint8_t code); /* a frame, all zeros */
void core_handle(struct core *core, const struct outrider_frame *frame, uint64_t now_us);
void core_feedback(struct core *core, uint64_t now_us);
void core_send(struct core *core, const struct outrider_frame *frame);
void core_begin_stop(struct core *core, enum outrider_stop_reason reason, uint64_t now_us);
uint32_t core_causes(const struct core *core); /* faults whose cause persists */
void core_acknowledge(struct core *core, uint32_t sequence, uint8_t code, enum outrider_result result,
                      uint32_t value);
void core_log(struct core *core, enum outrider_level level, const char *text, uint64_t now_us);

#endif
