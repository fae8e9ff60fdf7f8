/* What the board says without being asked, each kind at its own rate. */
#include "core.h"

#include <math.h>
#include <string.h>

#define SECOND_US 1000000u
#define STATUS_HZ 20u
#define BUMPER_HZ 20u
#define BATTERY_HZ 1u
#define HEARTBEAT_HZ 10u
#define BOARD_RADPS_MAX 500.0f
#define BOARD_CURRENT_MAX_A 200.0f

struct outrider_frame core_blank(uint8_t code)
{
    struct outrider_frame frame;

    memset(&frame, 0, sizeof frame); /* an initialiser clears the union's first member only */
    frame.code = code;
    return frame;
}

void core_send(struct core *core, const struct outrider_frame *frame)
{
    uint8_t wire[FRAMING_WIRE_MAX_BYTES];
    const size_t size = framing_encode(frame, wire);

    if (size == 0u || !hal_serial_write(wire, size)) {
        core->counts.frames_unsent++;
    }
}

/* A sensor's value as it may be sent; what is not finite is a fault already and goes out as zero. */
static float shown(float value, float bound)
{
    return isfinite(value) ? motion_clamp(value, -bound, bound) : 0.0f;
}

static void send_status(struct core *core, uint64_t now_us)
{
    struct outrider_frame frame = core_blank(OUTRIDER_CODE_STATUS);
    struct outrider_status *status = &frame.as.status;

    status->session = core->session;
    status->time_us = (uint32_t)now_us;
    status->state = (uint8_t)core->state;
    status->stop_reason = (uint8_t)core->stop_reason;
    status->faults = core->faults;
    status->sequence_executed = core->sequence_executed;
    status->commands_executed = core->counts.commands_executed;
    status->commands_stale = core->counts.commands_stale;
    status->commands_repeated = core->counts.commands_repeated;
    status->commands_refused = core->counts.commands_refused;
    status->frames_good = core->counts.frames_good;
    status->frames_bad = core->counts.frames_bad;
    status->frames_unsent = core->counts.frames_unsent;
    core_send(core, &frame);
}

static void send_wheels(struct core *core, uint64_t now_us)
{
    struct outrider_frame frame = core_blank(OUTRIDER_CODE_WHEELS);
    struct outrider_wheels *wheels = &frame.as.wheels;
    const struct hal_sensors *s = &core->sensors;

    wheels->time_us = (uint32_t)now_us;
    wheels->left_ticks = s->ticks[0];
    wheels->right_ticks = s->ticks[1];
    wheels->left_radps = shown(s->speed_radps[0], BOARD_RADPS_MAX);
    wheels->right_radps = shown(s->speed_radps[1], BOARD_RADPS_MAX);
    wheels->left_wanted_radps = shown(core->wanted_radps[0], BOARD_RADPS_MAX);
    wheels->right_wanted_radps = shown(core->wanted_radps[1], BOARD_RADPS_MAX);
    wheels->left_current_a = shown(s->current_a[0], BOARD_CURRENT_MAX_A);
    wheels->right_current_a = shown(s->current_a[1], BOARD_CURRENT_MAX_A);
    core_send(core, &frame);
}

static void send_imu(struct core *core, uint64_t now_us)
{
    struct outrider_frame frame = core_blank(OUTRIDER_CODE_IMU);
    struct outrider_imu *imu = &frame.as.imu;
    const struct hal_sensors *s = &core->sensors;

    imu->time_us = (uint32_t)now_us;
    imu->acceleration_x_mps2 = shown(s->acceleration_mps2[0], 200.0f);
    imu->acceleration_y_mps2 = shown(s->acceleration_mps2[1], 200.0f);
    imu->acceleration_z_mps2 = shown(s->acceleration_mps2[2], 200.0f);
    imu->turn_rate_x_radps = shown(s->turn_rate_radps[0], 50.0f);
    imu->turn_rate_y_radps = shown(s->turn_rate_radps[1], 50.0f);
    imu->turn_rate_z_radps = shown(s->turn_rate_radps[2], 50.0f);
    core_send(core, &frame);
}

static void send_battery(struct core *core, uint64_t now_us)
{
    struct outrider_frame frame = core_blank(OUTRIDER_CODE_BATTERY);

    frame.as.battery.time_us = (uint32_t)now_us;
    frame.as.battery.voltage_v = motion_clamp(core->sensors.battery_v, 0.0f, 100.0f);
    frame.as.battery.current_a = shown(core->sensors.battery_a, BOARD_CURRENT_MAX_A);
    frame.as.battery.charge = motion_clamp(core->sensors.charge, 0.0f, 1.0f);
    core_send(core, &frame);
}

static void send_bumper(struct core *core, uint64_t now_us)
{
    struct outrider_frame frame = core_blank(OUTRIDER_CODE_BUMPER);

    frame.as.bumper.time_us = (uint32_t)now_us;
    frame.as.bumper.bumpers = core->sensors.bumpers;
    frame.as.bumper.emergency_stop = core->sensors.emergency_stop ? 1u : 0u;
    core_send(core, &frame);
}

static void send_heartbeat(struct core *core)
{
    struct outrider_frame frame = core_blank(OUTRIDER_CODE_HEARTBEAT);

    frame.as.heartbeat.session = core->session;
    frame.as.heartbeat.beat = ++core->heartbeats;
    core_send(core, &frame);
}

void core_log(struct core *core, enum outrider_level level, const char *text, uint64_t now_us)
{
    struct outrider_frame frame = core_blank(OUTRIDER_CODE_LOG_LINE);
    struct outrider_log_line *line = &frame.as.log_line;

    line->time_us = (uint32_t)now_us;
    line->level = (uint8_t)level;
    while (line->length < OUTRIDER_LOG_TEXT_BYTES && text[line->length] != '\0') {
        line->text[line->length] = (uint8_t)text[line->length];
        line->length++;
    }
    core_send(core, &frame);
}

static bool due(struct core *core, enum core_feed feed, uint32_t hz, uint64_t now_us)
{
    const uint64_t period_us = SECOND_US / hz;

    if (now_us < core->due_us[feed]) {
        return false;
    }
    core->due_us[feed] += period_us;
    if (core->due_us[feed] <= now_us) {
        core->due_us[feed] = now_us + period_us; /* never catch up what was missed */
    }
    return true;
}

void core_feedback(struct core *core, uint64_t now_us)
{
    const uint32_t wheels_hz = core->parameters.bits[OUTRIDER_PARAMETER_WHEELS_HZ];
    const uint32_t imu_hz = core->parameters.bits[OUTRIDER_PARAMETER_IMU_HZ];
    const uint8_t inputs = (uint8_t)((unsigned)core->sensors.bumpers << 1u | (core->sensors.emergency_stop ? 1u : 0u));

    if (core->session == 0u) {
        return; /* nobody listens */
    }
    if (due(core, CORE_FEED_STATUS, STATUS_HZ, now_us) || core->announce) {
        core->announce = false;
        send_status(core, now_us);
    }
    if (due(core, CORE_FEED_WHEELS, wheels_hz, now_us)) {
        send_wheels(core, now_us);
    }
    if (due(core, CORE_FEED_IMU, imu_hz, now_us)) {
        send_imu(core, now_us);
    }
    if (due(core, CORE_FEED_BATTERY, BATTERY_HZ, now_us)) {
        send_battery(core, now_us);
    }
    if (due(core, CORE_FEED_BUMPER, BUMPER_HZ, now_us) || inputs != core->inputs_sent) {
        core->inputs_sent = inputs;
        send_bumper(core, now_us);
    }
    if (due(core, CORE_FEED_HEARTBEAT, HEARTBEAT_HZ, now_us)) {
        send_heartbeat(core);
    }
}
