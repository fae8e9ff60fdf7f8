/* Made by tools/protocol_gen.py from firmware_interface/protocol/schema.py: do not edit. */
#include "outrider_protocol.h"

#include <string.h>

static uint8_t *put_little(uint8_t *at, uint64_t value, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        at[i] = (uint8_t)((value >> (8u * i)) & 0xFFu);
    }
    return at + size;
}

static uint64_t get_little(const uint8_t **at, size_t size)
{
    uint64_t value = 0;
    for (size_t i = 0; i < size; i++) {
        value |= (uint64_t)(*at)[i] << (8u * i);
    }
    *at += size;
    return value;
}

static uint8_t *put_float(uint8_t *at, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return put_little(at, bits, sizeof bits);
}

static float get_float(const uint8_t **at)
{
    const uint32_t bits = (uint32_t)get_little(at, sizeof bits);
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint8_t *put_bytes(uint8_t *at, const uint8_t *data, size_t size)
{
    memcpy(at, data, size);
    return at + size;
}

static void get_bytes(const uint8_t **at, uint8_t *data, size_t size)
{
    memcpy(data, *at, size);
    *at += size;
}

const struct outrider_parameter_entry outrider_parameters[OUTRIDER_PARAMETER_COUNT] = {
    {1u, 1u, 0x3D4CCCCDu, 0x40000000u, 0x3F99999Au}, /* speed_max_mps, m/s */
    {2u, 1u, 0x3D4CCCCDu, 0x40000000u, 0x3E99999Au}, /* reverse_max_mps, m/s */
    {3u, 1u, 0x3DCCCCCDu, 0x40800000u, 0x3FE66666u}, /* turn_rate_max_radps, rad/s */
    {4u, 1u, 0x3DCCCCCDu, 0x40800000u, 0x3F99999Au}, /* acceleration_max_mps2, m/s^2 */
    {5u, 1u, 0x3E4CCCCDu, 0x40C00000u, 0x3FCCCCCDu}, /* deceleration_max_mps2, m/s^2 */
    {6u, 1u, 0x3F000000u, 0x41A00000u, 0x40A00000u}, /* turn_acceleration_max_radps2, rad/s^2 */
    {7u, 1u, 0x3F800000u, 0x43480000u, 0x42200000u}, /* jerk_max_mps3, m/s^3 */
    {8u, 1u, 0x40A00000u, 0x447A0000u, 0x43480000u}, /* turn_jerk_max_radps3, rad/s^3 */
    {9u, 1u, 0x3CA3D70Au, 0x3E99999Au, 0x3DA3D70Au}, /* wheel_radius_m, m */
    {10u, 1u, 0x3DCCCCCDu, 0x3FC00000u, 0x3ECCCCCDu}, /* wheel_track_m, m */
    {11u, 1u, 0x00000000u, 0x3F800000u, 0x3D08850Au}, /* wheel_feed_forward, 1/(rad/s) */
    {12u, 1u, 0x00000000u, 0x40000000u, 0x3D4CCCCDu}, /* wheel_p, 1/(rad/s) */
    {13u, 1u, 0x00000000u, 0x41A00000u, 0x3ECCCCCDu}, /* wheel_i, 1/rad */
    {14u, 1u, 0x00000000u, 0x3DCCCCCDu, 0x3951B717u}, /* wheel_d, s/(rad/s) */
    {15u, 1u, 0x3D4CCCCDu, 0x3F800000u, 0x3F800000u}, /* effort_max, share */
    {16u, 0u, 0x00004E20u, 0x00013880u, 0x00013880u}, /* watchdog_us, us */
    {17u, 1u, 0x40C00000u, 0x42700000u, 0x41A00000u}, /* battery_min_v, V */
    {18u, 1u, 0x3F800000u, 0x42C80000u, 0x41A00000u}, /* current_max_a, A */
    {19u, 0u, 0x00000001u, 0x000000C8u, 0x00000032u}, /* wheels_hz, Hz */
    {20u, 0u, 0x00000001u, 0x000000C8u, 0x00000032u}, /* imu_hz, Hz */
};

static bool valid_velocity_command(const struct outrider_velocity_command *in)
{
    return (in->age_us <= 1000000u)
        && (in->expiry_us >= 1u) && (in->expiry_us <= 200000u)
        && (in->linear_mps >= -2.0f) && (in->linear_mps <= 2.0f)
        && (in->angular_radps >= -4.0f) && (in->angular_radps <= 4.0f);
}

static bool valid_parameter_set(const struct outrider_parameter_set *in)
{
    return (in->kind <= 1u);
}

static bool valid_update_begin(const struct outrider_update_begin *in)
{
    return (in->version >= 1u);
}

static bool valid_update_block(const struct outrider_update_block *in)
{
    return (in->length >= 1u) && (in->length <= 128u);
}

static bool valid_acknowledge(const struct outrider_acknowledge *in)
{
    return (in->result <= 10u);
}

static bool valid_firmware_info(const struct outrider_firmware_info *in)
{
    return (in->slot <= 1u);
}

static bool valid_status(const struct outrider_status *in)
{
    return (in->state <= 3u)
        && (in->stop_reason <= 5u);
}

static bool valid_wheels(const struct outrider_wheels *in)
{
    return (in->left_radps >= -500.0f) && (in->left_radps <= 500.0f)
        && (in->right_radps >= -500.0f) && (in->right_radps <= 500.0f)
        && (in->left_wanted_radps >= -500.0f) && (in->left_wanted_radps <= 500.0f)
        && (in->right_wanted_radps >= -500.0f) && (in->right_wanted_radps <= 500.0f)
        && (in->left_current_a >= -200.0f) && (in->left_current_a <= 200.0f)
        && (in->right_current_a >= -200.0f) && (in->right_current_a <= 200.0f);
}

static bool valid_imu(const struct outrider_imu *in)
{
    return (in->acceleration_x_mps2 >= -200.0f) && (in->acceleration_x_mps2 <= 200.0f)
        && (in->acceleration_y_mps2 >= -200.0f) && (in->acceleration_y_mps2 <= 200.0f)
        && (in->acceleration_z_mps2 >= -200.0f) && (in->acceleration_z_mps2 <= 200.0f)
        && (in->turn_rate_x_radps >= -50.0f) && (in->turn_rate_x_radps <= 50.0f)
        && (in->turn_rate_y_radps >= -50.0f) && (in->turn_rate_y_radps <= 50.0f)
        && (in->turn_rate_z_radps >= -50.0f) && (in->turn_rate_z_radps <= 50.0f);
}

static bool valid_battery(const struct outrider_battery *in)
{
    return (in->voltage_v >= 0.0f) && (in->voltage_v <= 100.0f)
        && (in->current_a >= -200.0f) && (in->current_a <= 200.0f)
        && (in->charge >= 0.0f) && (in->charge <= 1.0f);
}

static bool valid_bumper(const struct outrider_bumper *in)
{
    return (in->emergency_stop <= 1u);
}

static bool valid_log_line(const struct outrider_log_line *in)
{
    return (in->level <= 2u)
        && (in->length <= 96u);
}

size_t outrider_encode(const struct outrider_frame *frame, uint8_t *raw)
{
    uint8_t *at = put_little(raw, frame->code, 1u);

    switch (frame->code) {
    case OUTRIDER_CODE_HELLO: {
        const struct outrider_hello *in = &frame->as.hello;
        at = put_little(at, in->revision, 2u);
        at = put_little(at, in->schema, 4u);
        at = put_little(at, in->nonce, 4u);
        at = put_little(at, in->session, 4u);
        at = put_little(at, in->capabilities, 4u);
        break;
    }
    case OUTRIDER_CODE_STOP: {
        const struct outrider_stop *in = &frame->as.stop;
        at = put_little(at, in->reason, 1u);
        break;
    }
    case OUTRIDER_CODE_VELOCITY_COMMAND: {
        const struct outrider_velocity_command *in = &frame->as.velocity_command;
        if (!valid_velocity_command(in)) {
            return 0u;
        }
        at = put_little(at, in->session, 4u);
        at = put_little(at, in->sequence, 4u);
        at = put_little(at, in->sent_us, 4u);
        at = put_little(at, in->age_us, 4u);
        at = put_little(at, in->expiry_us, 4u);
        at = put_float(at, in->linear_mps);
        at = put_float(at, in->angular_radps);
        break;
    }
    case OUTRIDER_CODE_ARM: {
        const struct outrider_arm *in = &frame->as.arm;
        at = put_little(at, in->session, 4u);
        at = put_little(at, in->sequence, 4u);
        at = put_little(at, in->sent_us, 4u);
        break;
    }
    case OUTRIDER_CODE_DISARM: {
        const struct outrider_disarm *in = &frame->as.disarm;
        at = put_little(at, in->session, 4u);
        at = put_little(at, in->sequence, 4u);
        break;
    }
    case OUTRIDER_CODE_CLEAR_FAULTS: {
        const struct outrider_clear_faults *in = &frame->as.clear_faults;
        at = put_little(at, in->session, 4u);
        at = put_little(at, in->sequence, 4u);
        at = put_little(at, in->mask, 4u);
        break;
    }
    case OUTRIDER_CODE_HEARTBEAT: {
        const struct outrider_heartbeat *in = &frame->as.heartbeat;
        at = put_little(at, in->session, 4u);
        at = put_little(at, in->beat, 4u);
        break;
    }
    case OUTRIDER_CODE_PARAMETER_GET: {
        const struct outrider_parameter_get *in = &frame->as.parameter_get;
        at = put_little(at, in->session, 4u);
        at = put_little(at, in->sequence, 4u);
        at = put_little(at, in->id, 1u);
        break;
    }
    case OUTRIDER_CODE_PARAMETER_SET: {
        const struct outrider_parameter_set *in = &frame->as.parameter_set;
        if (!valid_parameter_set(in)) {
            return 0u;
        }
        at = put_little(at, in->session, 4u);
        at = put_little(at, in->sequence, 4u);
        at = put_little(at, in->id, 1u);
        at = put_little(at, in->kind, 1u);
        at = put_little(at, in->bits, 4u);
        break;
    }
    case OUTRIDER_CODE_TIME_REQUEST: {
        const struct outrider_time_request *in = &frame->as.time_request;
        at = put_little(at, in->host_us, 8u);
        break;
    }
    case OUTRIDER_CODE_INFO_REQUEST: {
        const struct outrider_info_request *in = &frame->as.info_request;
        at = put_little(at, in->session, 4u);
        break;
    }
    case OUTRIDER_CODE_UPDATE_BEGIN: {
        const struct outrider_update_begin *in = &frame->as.update_begin;
        if (!valid_update_begin(in)) {
            return 0u;
        }
        at = put_little(at, in->session, 4u);
        at = put_little(at, in->sequence, 4u);
        at = put_little(at, in->version, 4u);
        at = put_little(at, in->size, 4u);
        at = put_bytes(at, in->digest, 32u);
        at = put_bytes(at, in->signature, 64u);
        break;
    }
    case OUTRIDER_CODE_UPDATE_BLOCK: {
        const struct outrider_update_block *in = &frame->as.update_block;
        if (!valid_update_block(in)) {
            return 0u;
        }
        at = put_little(at, in->session, 4u);
        at = put_little(at, in->sequence, 4u);
        at = put_little(at, in->offset, 4u);
        at = put_little(at, in->length, 1u);
        at = put_bytes(at, in->data, 128u);
        break;
    }
    case OUTRIDER_CODE_UPDATE_VERIFY: {
        const struct outrider_update_verify *in = &frame->as.update_verify;
        at = put_little(at, in->session, 4u);
        at = put_little(at, in->sequence, 4u);
        break;
    }
    case OUTRIDER_CODE_UPDATE_SWITCH: {
        const struct outrider_update_switch *in = &frame->as.update_switch;
        at = put_little(at, in->session, 4u);
        at = put_little(at, in->sequence, 4u);
        break;
    }
    case OUTRIDER_CODE_ACKNOWLEDGE: {
        const struct outrider_acknowledge *in = &frame->as.acknowledge;
        if (!valid_acknowledge(in)) {
            return 0u;
        }
        at = put_little(at, in->session, 4u);
        at = put_little(at, in->sequence, 4u);
        at = put_little(at, in->code, 1u);
        at = put_little(at, in->result, 1u);
        at = put_little(at, in->value, 4u);
        break;
    }
    case OUTRIDER_CODE_TIME_REPLY: {
        const struct outrider_time_reply *in = &frame->as.time_reply;
        at = put_little(at, in->host_us, 8u);
        at = put_little(at, in->received_us, 8u);
        at = put_little(at, in->sent_us, 8u);
        break;
    }
    case OUTRIDER_CODE_FIRMWARE_INFO: {
        const struct outrider_firmware_info *in = &frame->as.firmware_info;
        if (!valid_firmware_info(in)) {
            return 0u;
        }
        at = put_little(at, in->version, 4u);
        at = put_little(at, in->slot, 1u);
        at = put_little(at, in->boots, 4u);
        at = put_bytes(at, in->digest, 32u);
        at = put_bytes(at, in->board, 16u);
        break;
    }
    case OUTRIDER_CODE_STATUS: {
        const struct outrider_status *in = &frame->as.status;
        if (!valid_status(in)) {
            return 0u;
        }
        at = put_little(at, in->session, 4u);
        at = put_little(at, in->time_us, 4u);
        at = put_little(at, in->state, 1u);
        at = put_little(at, in->stop_reason, 1u);
        at = put_little(at, in->faults, 4u);
        at = put_little(at, in->sequence_executed, 4u);
        at = put_little(at, in->commands_executed, 4u);
        at = put_little(at, in->commands_stale, 4u);
        at = put_little(at, in->commands_repeated, 4u);
        at = put_little(at, in->commands_refused, 4u);
        at = put_little(at, in->frames_good, 4u);
        at = put_little(at, in->frames_bad, 4u);
        at = put_little(at, in->frames_unsent, 4u);
        break;
    }
    case OUTRIDER_CODE_WHEELS: {
        const struct outrider_wheels *in = &frame->as.wheels;
        if (!valid_wheels(in)) {
            return 0u;
        }
        at = put_little(at, in->time_us, 4u);
        at = put_little(at, (uint32_t)in->left_ticks, 4u);
        at = put_little(at, (uint32_t)in->right_ticks, 4u);
        at = put_float(at, in->left_radps);
        at = put_float(at, in->right_radps);
        at = put_float(at, in->left_wanted_radps);
        at = put_float(at, in->right_wanted_radps);
        at = put_float(at, in->left_current_a);
        at = put_float(at, in->right_current_a);
        break;
    }
    case OUTRIDER_CODE_IMU: {
        const struct outrider_imu *in = &frame->as.imu;
        if (!valid_imu(in)) {
            return 0u;
        }
        at = put_little(at, in->time_us, 4u);
        at = put_float(at, in->acceleration_x_mps2);
        at = put_float(at, in->acceleration_y_mps2);
        at = put_float(at, in->acceleration_z_mps2);
        at = put_float(at, in->turn_rate_x_radps);
        at = put_float(at, in->turn_rate_y_radps);
        at = put_float(at, in->turn_rate_z_radps);
        break;
    }
    case OUTRIDER_CODE_BATTERY: {
        const struct outrider_battery *in = &frame->as.battery;
        if (!valid_battery(in)) {
            return 0u;
        }
        at = put_little(at, in->time_us, 4u);
        at = put_float(at, in->voltage_v);
        at = put_float(at, in->current_a);
        at = put_float(at, in->charge);
        break;
    }
    case OUTRIDER_CODE_BUMPER: {
        const struct outrider_bumper *in = &frame->as.bumper;
        if (!valid_bumper(in)) {
            return 0u;
        }
        at = put_little(at, in->time_us, 4u);
        at = put_little(at, in->bumpers, 1u);
        at = put_little(at, in->emergency_stop, 1u);
        break;
    }
    case OUTRIDER_CODE_LOG_LINE: {
        const struct outrider_log_line *in = &frame->as.log_line;
        if (!valid_log_line(in)) {
            return 0u;
        }
        at = put_little(at, in->time_us, 4u);
        at = put_little(at, in->level, 1u);
        at = put_little(at, in->length, 1u);
        at = put_bytes(at, in->text, 96u);
        break;
    }
    default:
        return 0u;
    }
    return (size_t)(at - raw);
}

enum outrider_verdict outrider_decode(const uint8_t *raw, size_t size, struct outrider_frame *frame)
{
    const uint8_t *at = raw + 1;
    bool valid = false;

    if (size == 0u) {
        return OUTRIDER_VERDICT_TOO_SHORT;
    }
    frame->code = raw[0];
    switch (frame->code) {
    case OUTRIDER_CODE_HELLO: {
        struct outrider_hello *out = &frame->as.hello;
        if (size != 19u) {
            return OUTRIDER_VERDICT_WRONG_LENGTH;
        }
        out->revision = (uint16_t)get_little(&at, 2u);
        out->schema = (uint32_t)get_little(&at, 4u);
        out->nonce = (uint32_t)get_little(&at, 4u);
        out->session = (uint32_t)get_little(&at, 4u);
        out->capabilities = (uint32_t)get_little(&at, 4u);
        valid = true;
        break;
    }
    case OUTRIDER_CODE_STOP: {
        struct outrider_stop *out = &frame->as.stop;
        if (size != 2u) {
            return OUTRIDER_VERDICT_WRONG_LENGTH;
        }
        out->reason = (uint8_t)get_little(&at, 1u);
        valid = true;
        break;
    }
    case OUTRIDER_CODE_VELOCITY_COMMAND: {
        struct outrider_velocity_command *out = &frame->as.velocity_command;
        if (size != 29u) {
            return OUTRIDER_VERDICT_WRONG_LENGTH;
        }
        out->session = (uint32_t)get_little(&at, 4u);
        out->sequence = (uint32_t)get_little(&at, 4u);
        out->sent_us = (uint32_t)get_little(&at, 4u);
        out->age_us = (uint32_t)get_little(&at, 4u);
        out->expiry_us = (uint32_t)get_little(&at, 4u);
        out->linear_mps = get_float(&at);
        out->angular_radps = get_float(&at);
        valid = valid_velocity_command(out);
        break;
    }
    case OUTRIDER_CODE_ARM: {
        struct outrider_arm *out = &frame->as.arm;
        if (size != 13u) {
            return OUTRIDER_VERDICT_WRONG_LENGTH;
        }
        out->session = (uint32_t)get_little(&at, 4u);
        out->sequence = (uint32_t)get_little(&at, 4u);
        out->sent_us = (uint32_t)get_little(&at, 4u);
        valid = true;
        break;
    }
    case OUTRIDER_CODE_DISARM: {
        struct outrider_disarm *out = &frame->as.disarm;
        if (size != 9u) {
            return OUTRIDER_VERDICT_WRONG_LENGTH;
        }
        out->session = (uint32_t)get_little(&at, 4u);
        out->sequence = (uint32_t)get_little(&at, 4u);
        valid = true;
        break;
    }
    case OUTRIDER_CODE_CLEAR_FAULTS: {
        struct outrider_clear_faults *out = &frame->as.clear_faults;
        if (size != 13u) {
            return OUTRIDER_VERDICT_WRONG_LENGTH;
        }
        out->session = (uint32_t)get_little(&at, 4u);
        out->sequence = (uint32_t)get_little(&at, 4u);
        out->mask = (uint32_t)get_little(&at, 4u);
        valid = true;
        break;
    }
    case OUTRIDER_CODE_HEARTBEAT: {
        struct outrider_heartbeat *out = &frame->as.heartbeat;
        if (size != 9u) {
            return OUTRIDER_VERDICT_WRONG_LENGTH;
        }
        out->session = (uint32_t)get_little(&at, 4u);
        out->beat = (uint32_t)get_little(&at, 4u);
        valid = true;
        break;
    }
    case OUTRIDER_CODE_PARAMETER_GET: {
        struct outrider_parameter_get *out = &frame->as.parameter_get;
        if (size != 10u) {
            return OUTRIDER_VERDICT_WRONG_LENGTH;
        }
        out->session = (uint32_t)get_little(&at, 4u);
        out->sequence = (uint32_t)get_little(&at, 4u);
        out->id = (uint8_t)get_little(&at, 1u);
        valid = true;
        break;
    }
    case OUTRIDER_CODE_PARAMETER_SET: {
        struct outrider_parameter_set *out = &frame->as.parameter_set;
        if (size != 15u) {
            return OUTRIDER_VERDICT_WRONG_LENGTH;
        }
        out->session = (uint32_t)get_little(&at, 4u);
        out->sequence = (uint32_t)get_little(&at, 4u);
        out->id = (uint8_t)get_little(&at, 1u);
        out->kind = (uint8_t)get_little(&at, 1u);
        out->bits = (uint32_t)get_little(&at, 4u);
        valid = valid_parameter_set(out);
        break;
    }
    case OUTRIDER_CODE_TIME_REQUEST: {
        struct outrider_time_request *out = &frame->as.time_request;
        if (size != 9u) {
            return OUTRIDER_VERDICT_WRONG_LENGTH;
        }
        out->host_us = (uint64_t)get_little(&at, 8u);
        valid = true;
        break;
    }
    case OUTRIDER_CODE_INFO_REQUEST: {
        struct outrider_info_request *out = &frame->as.info_request;
        if (size != 5u) {
            return OUTRIDER_VERDICT_WRONG_LENGTH;
        }
        out->session = (uint32_t)get_little(&at, 4u);
        valid = true;
        break;
    }
    case OUTRIDER_CODE_UPDATE_BEGIN: {
        struct outrider_update_begin *out = &frame->as.update_begin;
        if (size != 113u) {
            return OUTRIDER_VERDICT_WRONG_LENGTH;
        }
        out->session = (uint32_t)get_little(&at, 4u);
        out->sequence = (uint32_t)get_little(&at, 4u);
        out->version = (uint32_t)get_little(&at, 4u);
        out->size = (uint32_t)get_little(&at, 4u);
        get_bytes(&at, out->digest, 32u);
        get_bytes(&at, out->signature, 64u);
        valid = valid_update_begin(out);
        break;
    }
    case OUTRIDER_CODE_UPDATE_BLOCK: {
        struct outrider_update_block *out = &frame->as.update_block;
        if (size != 142u) {
            return OUTRIDER_VERDICT_WRONG_LENGTH;
        }
        out->session = (uint32_t)get_little(&at, 4u);
        out->sequence = (uint32_t)get_little(&at, 4u);
        out->offset = (uint32_t)get_little(&at, 4u);
        out->length = (uint8_t)get_little(&at, 1u);
        get_bytes(&at, out->data, 128u);
        valid = valid_update_block(out);
        break;
    }
    case OUTRIDER_CODE_UPDATE_VERIFY: {
        struct outrider_update_verify *out = &frame->as.update_verify;
        if (size != 9u) {
            return OUTRIDER_VERDICT_WRONG_LENGTH;
        }
        out->session = (uint32_t)get_little(&at, 4u);
        out->sequence = (uint32_t)get_little(&at, 4u);
        valid = true;
        break;
    }
    case OUTRIDER_CODE_UPDATE_SWITCH: {
        struct outrider_update_switch *out = &frame->as.update_switch;
        if (size != 9u) {
            return OUTRIDER_VERDICT_WRONG_LENGTH;
        }
        out->session = (uint32_t)get_little(&at, 4u);
        out->sequence = (uint32_t)get_little(&at, 4u);
        valid = true;
        break;
    }
    case OUTRIDER_CODE_ACKNOWLEDGE: {
        struct outrider_acknowledge *out = &frame->as.acknowledge;
        if (size != 15u) {
            return OUTRIDER_VERDICT_WRONG_LENGTH;
        }
        out->session = (uint32_t)get_little(&at, 4u);
        out->sequence = (uint32_t)get_little(&at, 4u);
        out->code = (uint8_t)get_little(&at, 1u);
        out->result = (uint8_t)get_little(&at, 1u);
        out->value = (uint32_t)get_little(&at, 4u);
        valid = valid_acknowledge(out);
        break;
    }
    case OUTRIDER_CODE_TIME_REPLY: {
        struct outrider_time_reply *out = &frame->as.time_reply;
        if (size != 25u) {
            return OUTRIDER_VERDICT_WRONG_LENGTH;
        }
        out->host_us = (uint64_t)get_little(&at, 8u);
        out->received_us = (uint64_t)get_little(&at, 8u);
        out->sent_us = (uint64_t)get_little(&at, 8u);
        valid = true;
        break;
    }
    case OUTRIDER_CODE_FIRMWARE_INFO: {
        struct outrider_firmware_info *out = &frame->as.firmware_info;
        if (size != 58u) {
            return OUTRIDER_VERDICT_WRONG_LENGTH;
        }
        out->version = (uint32_t)get_little(&at, 4u);
        out->slot = (uint8_t)get_little(&at, 1u);
        out->boots = (uint32_t)get_little(&at, 4u);
        get_bytes(&at, out->digest, 32u);
        get_bytes(&at, out->board, 16u);
        valid = valid_firmware_info(out);
        break;
    }
    case OUTRIDER_CODE_STATUS: {
        struct outrider_status *out = &frame->as.status;
        if (size != 47u) {
            return OUTRIDER_VERDICT_WRONG_LENGTH;
        }
        out->session = (uint32_t)get_little(&at, 4u);
        out->time_us = (uint32_t)get_little(&at, 4u);
        out->state = (uint8_t)get_little(&at, 1u);
        out->stop_reason = (uint8_t)get_little(&at, 1u);
        out->faults = (uint32_t)get_little(&at, 4u);
        out->sequence_executed = (uint32_t)get_little(&at, 4u);
        out->commands_executed = (uint32_t)get_little(&at, 4u);
        out->commands_stale = (uint32_t)get_little(&at, 4u);
        out->commands_repeated = (uint32_t)get_little(&at, 4u);
        out->commands_refused = (uint32_t)get_little(&at, 4u);
        out->frames_good = (uint32_t)get_little(&at, 4u);
        out->frames_bad = (uint32_t)get_little(&at, 4u);
        out->frames_unsent = (uint32_t)get_little(&at, 4u);
        valid = valid_status(out);
        break;
    }
    case OUTRIDER_CODE_WHEELS: {
        struct outrider_wheels *out = &frame->as.wheels;
        if (size != 37u) {
            return OUTRIDER_VERDICT_WRONG_LENGTH;
        }
        out->time_us = (uint32_t)get_little(&at, 4u);
        out->left_ticks = (int32_t)(uint32_t)get_little(&at, 4u);
        out->right_ticks = (int32_t)(uint32_t)get_little(&at, 4u);
        out->left_radps = get_float(&at);
        out->right_radps = get_float(&at);
        out->left_wanted_radps = get_float(&at);
        out->right_wanted_radps = get_float(&at);
        out->left_current_a = get_float(&at);
        out->right_current_a = get_float(&at);
        valid = valid_wheels(out);
        break;
    }
    case OUTRIDER_CODE_IMU: {
        struct outrider_imu *out = &frame->as.imu;
        if (size != 29u) {
            return OUTRIDER_VERDICT_WRONG_LENGTH;
        }
        out->time_us = (uint32_t)get_little(&at, 4u);
        out->acceleration_x_mps2 = get_float(&at);
        out->acceleration_y_mps2 = get_float(&at);
        out->acceleration_z_mps2 = get_float(&at);
        out->turn_rate_x_radps = get_float(&at);
        out->turn_rate_y_radps = get_float(&at);
        out->turn_rate_z_radps = get_float(&at);
        valid = valid_imu(out);
        break;
    }
    case OUTRIDER_CODE_BATTERY: {
        struct outrider_battery *out = &frame->as.battery;
        if (size != 17u) {
            return OUTRIDER_VERDICT_WRONG_LENGTH;
        }
        out->time_us = (uint32_t)get_little(&at, 4u);
        out->voltage_v = get_float(&at);
        out->current_a = get_float(&at);
        out->charge = get_float(&at);
        valid = valid_battery(out);
        break;
    }
    case OUTRIDER_CODE_BUMPER: {
        struct outrider_bumper *out = &frame->as.bumper;
        if (size != 7u) {
            return OUTRIDER_VERDICT_WRONG_LENGTH;
        }
        out->time_us = (uint32_t)get_little(&at, 4u);
        out->bumpers = (uint8_t)get_little(&at, 1u);
        out->emergency_stop = (uint8_t)get_little(&at, 1u);
        valid = valid_bumper(out);
        break;
    }
    case OUTRIDER_CODE_LOG_LINE: {
        struct outrider_log_line *out = &frame->as.log_line;
        if (size != 103u) {
            return OUTRIDER_VERDICT_WRONG_LENGTH;
        }
        out->time_us = (uint32_t)get_little(&at, 4u);
        out->level = (uint8_t)get_little(&at, 1u);
        out->length = (uint8_t)get_little(&at, 1u);
        get_bytes(&at, out->text, 96u);
        valid = valid_log_line(out);
        break;
    }
    default:
        return OUTRIDER_VERDICT_UNKNOWN_CODE;
    }
    return valid ? OUTRIDER_VERDICT_GOOD : OUTRIDER_VERDICT_OUT_OF_RANGE;
}

bool outrider_is_ordered(uint8_t code)
{
    switch (code) {
    case OUTRIDER_CODE_VELOCITY_COMMAND:
    case OUTRIDER_CODE_ARM:
    case OUTRIDER_CODE_DISARM:
    case OUTRIDER_CODE_CLEAR_FAULTS:
    case OUTRIDER_CODE_PARAMETER_GET:
    case OUTRIDER_CODE_PARAMETER_SET:
    case OUTRIDER_CODE_UPDATE_BEGIN:
    case OUTRIDER_CODE_UPDATE_BLOCK:
    case OUTRIDER_CODE_UPDATE_VERIFY:
    case OUTRIDER_CODE_UPDATE_SWITCH:
        return true;
    default:
        return false;
    }
}

bool outrider_is_for_board(uint8_t code)
{
    switch (code) {
    case OUTRIDER_CODE_HELLO:
    case OUTRIDER_CODE_STOP:
    case OUTRIDER_CODE_VELOCITY_COMMAND:
    case OUTRIDER_CODE_ARM:
    case OUTRIDER_CODE_DISARM:
    case OUTRIDER_CODE_CLEAR_FAULTS:
    case OUTRIDER_CODE_HEARTBEAT:
    case OUTRIDER_CODE_PARAMETER_GET:
    case OUTRIDER_CODE_PARAMETER_SET:
    case OUTRIDER_CODE_TIME_REQUEST:
    case OUTRIDER_CODE_INFO_REQUEST:
    case OUTRIDER_CODE_UPDATE_BEGIN:
    case OUTRIDER_CODE_UPDATE_BLOCK:
    case OUTRIDER_CODE_UPDATE_VERIFY:
    case OUTRIDER_CODE_UPDATE_SWITCH:
        return true;
    default:
        return false;
    }
}
