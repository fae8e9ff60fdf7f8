/* What a frame does. */
#include "core.h"

#include <string.h>

static bool fresh(uint32_t sent_us, uint32_t age_us, uint32_t limit_us, uint64_t now_us, uint32_t *spent_us)
{
    const uint32_t transit = (uint32_t)now_us - sent_us;
    const bool future = transit > UINT32_MAX / 2u;

    if (future && 0u - transit > OUTRIDER_FUTURE_MAX_US) {
        return false;
    }
    /* In 64 bits: both parts may be large. */
    const uint64_t spent = (uint64_t)age_us + (future ? 0u : transit);
    if (spent >= limit_us) {
        return false;
    }
    *spent_us = (uint32_t)spent;
    return true;
}

static void say_hello(struct core *core, uint32_t nonce, uint32_t session)
{
    struct outrider_frame answer = core_blank(OUTRIDER_CODE_HELLO);

    answer.as.hello.revision = OUTRIDER_SCHEMA_REVISION;
    answer.as.hello.schema = OUTRIDER_SCHEMA_HASH;
    answer.as.hello.nonce = nonce;
    answer.as.hello.session = session;
    answer.as.hello.capabilities = hal_capabilities();
    core_send(core, &answer);
}

static void take_hello(struct core *core, const struct outrider_hello *hello, uint64_t now_us)
{
    if (hello->schema != OUTRIDER_SCHEMA_HASH) {
        say_hello(core, hello->nonce, 0u);
        return;
    }
    if (core->session == 0u || hello->nonce != core->nonce) {
        core_begin_stop(core, OUTRIDER_STOP_REASON_SESSION_NEW, now_us);
        core->sessions = core->sessions % 0xFFFFu + 1u;
        core->session = (core->boots << 16) | core->sessions;
        core->nonce = hello->nonce;
        core->sequence_last = 0u;
        core->announce = true;
    }
    core->heard_us = now_us;
    say_hello(core, hello->nonce, core->session);
}

static void take_command(struct core *core, const struct outrider_velocity_command *command, uint64_t now_us)
{
    uint32_t spent_us;

    if (core->state != OUTRIDER_STATE_ARMED) {
        core->counts.commands_refused++;
        return;
    }
    if (!fresh(command->sent_us, command->age_us, command->expiry_us, now_us, &spent_us)) {
        core->counts.commands_stale++;
        return;
    }
    const uint32_t left_us = command->expiry_us - spent_us;
    const uint32_t watchdog_us = core->parameters.bits[OUTRIDER_PARAMETER_WATCHDOG_US];
    core->target_mps = command->linear_mps;
    core->target_radps = command->angular_radps;
    core->deadline_us = now_us + (left_us < watchdog_us ? left_us : watchdog_us);
    core->sequence_executed = command->sequence;
    core->counts.commands_executed++;
}

static enum outrider_result take_arm(struct core *core, const struct outrider_arm *arm, uint64_t now_us)
{
    uint32_t spent_us;

    if (!fresh(arm->sent_us, 0u, OUTRIDER_ARM_AGE_MAX_US, now_us, &spent_us)) {
        return OUTRIDER_RESULT_STALE;
    }
    if (core->state == OUTRIDER_STATE_ARMED) {
        return OUTRIDER_RESULT_OK; /* asked again because the answer was lost */
    }
    if (core->faults != 0u || core_causes(core) != 0u) {
        return OUTRIDER_RESULT_FAULTED;
    }
    if (core->state != OUTRIDER_STATE_DISARMED) {
        return OUTRIDER_RESULT_NOT_ALLOWED;
    }
    core->state = OUTRIDER_STATE_ARMED;
    core->deadline_us = now_us + core->parameters.bits[OUTRIDER_PARAMETER_WATCHDOG_US];
    core->announce = true;
    return OUTRIDER_RESULT_OK;
}

static enum outrider_result clear_faults(struct core *core, uint32_t mask)
{
    const uint32_t causes = core_causes(core);

    core->faults &= ~(mask & ~causes);
    if (core->faults == 0u && core->state == OUTRIDER_STATE_FAULTED) {
        core->state = OUTRIDER_STATE_DISARMED;
        core->announce = true;
    }
    return (causes & mask) == 0u ? OUTRIDER_RESULT_OK : OUTRIDER_RESULT_FAULTED;
}

void core_acknowledge(struct core *core, uint32_t sequence, uint8_t code, enum outrider_result result,
                      uint32_t value)
{
    struct outrider_frame answer = core_blank(OUTRIDER_CODE_ACKNOWLEDGE);

    answer.as.acknowledge.session = core->session;
    answer.as.acknowledge.sequence = sequence;
    answer.as.acknowledge.code = code;
    answer.as.acknowledge.result = (uint8_t)result;
    answer.as.acknowledge.value = value;
    core_send(core, &answer);
}

/* Parameters and updates: only on a board that stands. */
static enum outrider_result take_maintenance(struct core *core, const struct outrider_frame *frame, uint32_t *value,
                                             bool *later)
{
    enum outrider_result result;

    if (core->state != OUTRIDER_STATE_DISARMED) {
        return OUTRIDER_RESULT_NOT_ALLOWED;
    }
    switch (frame->code) {
    case OUTRIDER_CODE_PARAMETER_SET:
        return parameters_set(&core->parameters, &frame->as.parameter_set, value);
    case OUTRIDER_CODE_UPDATE_BEGIN:
        result = update_begin(&core->update, &frame->as.update_begin);
        break;
    case OUTRIDER_CODE_UPDATE_BLOCK:
        result = update_block(&core->update, &frame->as.update_block);
        break;
    case OUTRIDER_CODE_UPDATE_VERIFY:
        result = update_verify(&core->update);
        *later = result == OUTRIDER_RESULT_OK && core->update.state == UPDATE_VERIFYING;
        core->verify_sequence = frame->as.update_verify.sequence;
        break;
    default:
        result = update_switch(&core->update);
        core->restarting = result == OUTRIDER_RESULT_OK;
        break;
    }
    *value = core->update.offset;
    return result;
}

static void take_ordered(struct core *core, const struct outrider_frame *frame, uint64_t now_us)
{
    /* Every ordered frame begins with session and sequence. */
    const uint32_t sequence = frame->as.disarm.sequence;
    enum outrider_result result = OUTRIDER_RESULT_OK;
    uint32_t value = 0u;
    bool later = false;

    if (core->session == 0u || frame->as.disarm.session != core->session) {
        core->counts.commands_refused++;
        return;
    }
    if (sequence <= core->sequence_last) {
        core->counts.commands_repeated++;
        return;
    }
    core->sequence_last = sequence;
    core->heard_us = now_us;
    switch (frame->code) {
    case OUTRIDER_CODE_VELOCITY_COMMAND:
        take_command(core, &frame->as.velocity_command, now_us);
        return;
    case OUTRIDER_CODE_ARM:
        result = take_arm(core, &frame->as.arm, now_us);
        break;
    case OUTRIDER_CODE_DISARM:
        core_begin_stop(core, OUTRIDER_STOP_REASON_DISARM, now_us);
        break;
    case OUTRIDER_CODE_CLEAR_FAULTS:
        result = clear_faults(core, frame->as.clear_faults.mask);
        value = core->faults;
        break;
    case OUTRIDER_CODE_PARAMETER_GET:
        result = parameters_get(&core->parameters, frame->as.parameter_get.id, &value);
        break;
    default:
        result = take_maintenance(core, frame, &value, &later);
        break;
    }
    if (!later) {
        core_acknowledge(core, sequence, frame->code, result, value);
    }
}

static void tell_time(struct core *core, const struct outrider_time_request *request, uint64_t now_us)
{
    struct outrider_frame answer = core_blank(OUTRIDER_CODE_TIME_REPLY);

    answer.as.time_reply.host_us = request->host_us;
    answer.as.time_reply.received_us = now_us;
    answer.as.time_reply.sent_us = hal_time_us();
    core_send(core, &answer);
}

static void tell_firmware(struct core *core)
{
    struct outrider_frame answer = core_blank(OUTRIDER_CODE_FIRMWARE_INFO);
    struct outrider_firmware_info *info = &answer.as.firmware_info;
    const char *name = hal_board_name();

    info->version = core->update.running.version;
    info->slot = (uint8_t)core->update.slot;
    info->boots = core->boots;
    memcpy(info->digest, core->update.running.digest, sizeof info->digest);
    for (size_t i = 0u; i < sizeof info->board && name[i] != '\0'; i++) {
        info->board[i] = (uint8_t)name[i];
    }
    core_send(core, &answer);
}

void core_handle(struct core *core, const struct outrider_frame *frame, uint64_t now_us)
{
    if (core->restarting || !outrider_is_for_board(frame->code)) {
        return;
    }
    if (outrider_is_ordered(frame->code)) {
        take_ordered(core, frame, now_us);
        return;
    }
    switch (frame->code) {
    case OUTRIDER_CODE_HELLO:
        take_hello(core, &frame->as.hello, now_us);
        break;
    case OUTRIDER_CODE_STOP:
        core_begin_stop(core, OUTRIDER_STOP_REASON_STOP_FRAME, now_us);
        break;
    case OUTRIDER_CODE_HEARTBEAT:
        if (frame->as.heartbeat.session == core->session) {
            core->heard_us = now_us;
        }
        break;
    case OUTRIDER_CODE_TIME_REQUEST:
        if (core->session != 0u) {
            tell_time(core, &frame->as.time_request, now_us);
        }
        break;
    default: /* OUTRIDER_CODE_INFO_REQUEST: there is no other */
        if (core->session != 0u && frame->as.info_request.session == core->session) {
            tell_firmware(core);
        }
        break;
    }
}
