/* Made by tools/protocol_gen.py from firmware_interface/protocol/schema.py: do not edit. */
#ifndef OUTRIDER_PROTOCOL_H
#define OUTRIDER_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OUTRIDER_SCHEMA_HASH 0xA3BF4ED5u
#define OUTRIDER_SCHEMA_REVISION 1u
#define OUTRIDER_RAW_MAX_BYTES 253u
#define OUTRIDER_SESSION_TIMEOUT_US 1000000u
#define OUTRIDER_FUTURE_MAX_US 5000
#define OUTRIDER_ARM_AGE_MAX_US 200000
#define OUTRIDER_UPDATE_BLOCK_BYTES 128u
#define OUTRIDER_LOG_TEXT_BYTES 96u

enum outrider_state {
    OUTRIDER_STATE_DISARMED = 0, /* stands, motors off, takes parameters and updates */
    OUTRIDER_STATE_ARMED = 1, /* executes commands */
    OUTRIDER_STATE_STOPPING = 2, /* wheels are asked for zero until they stand, then disarmed */
    OUTRIDER_STATE_FAULTED = 3, /* stands until the cause is gone and the fault is cleared */
};

enum outrider_stop_reason {
    OUTRIDER_STOP_REASON_NONE = 0, /* has not been armed yet */
    OUTRIDER_STOP_REASON_STOP_FRAME = 1, /* a stop frame came */
    OUTRIDER_STOP_REASON_DISARM = 2, /* a disarm frame came */
    OUTRIDER_STOP_REASON_WATCHDOG = 3, /* no command was accepted in time, or the last one expired */
    OUTRIDER_STOP_REASON_SESSION_NEW = 4, /* another session was opened */
    OUTRIDER_STOP_REASON_FAULT = 5, /* see the fault bitmap */
};

enum outrider_result {
    OUTRIDER_RESULT_OK = 0, /* done */
    OUTRIDER_RESULT_NOT_ALLOWED = 1, /* not in this state: parameters and updates need a disarmed board */
    OUTRIDER_RESULT_FAULTED = 2, /* a fault is not cleared, or its cause persists */
    OUTRIDER_RESULT_STALE = 3, /* it took too long to arrive */
    OUTRIDER_RESULT_UNKNOWN = 4, /* no such parameter */
    OUTRIDER_RESULT_OUT_OF_RANGE = 5, /* a value out of its range, or of another type */
    OUTRIDER_RESULT_STORAGE = 6, /* the flash memory did not take it */
    OUTRIDER_RESULT_OUT_OF_PLACE = 7, /* another offset is expected, or no update has begun */
    OUTRIDER_RESULT_TOO_OLD = 8, /* the image's version is not above the running one's, or below one installed before */
    OUTRIDER_RESULT_BAD_DIGEST = 9, /* what was written is not what was announced */
    OUTRIDER_RESULT_BAD_SIGNATURE = 10, /* not signed for this board with the key it trusts, or it has none */
};

enum outrider_kind {
    OUTRIDER_KIND_U32 = 0, /* unsigned integer */
    OUTRIDER_KIND_F32 = 1, /* IEEE 754 single */
};

enum outrider_level {
    OUTRIDER_LEVEL_INFO = 0,
    OUTRIDER_LEVEL_WARNING = 1,
    OUTRIDER_LEVEL_ERROR = 2,
};

enum outrider_verdict {
    OUTRIDER_VERDICT_GOOD = 0, /* a frame */
    OUTRIDER_VERDICT_BAD_COBS = 1, /* no COBS encoding */
    OUTRIDER_VERDICT_TOO_SHORT = 2, /* shorter than a code and a CRC */
    OUTRIDER_VERDICT_TOO_LONG = 3, /* longer than any frame */
    OUTRIDER_VERDICT_BAD_CRC = 4, /* the checksum does not fit */
    OUTRIDER_VERDICT_UNKNOWN_CODE = 5, /* no frame has this code */
    OUTRIDER_VERDICT_WRONG_LENGTH = 6, /* not the length of this frame */
    OUTRIDER_VERDICT_OUT_OF_RANGE = 7, /* a field is out of its range, or not finite */
};

#define OUTRIDER_CAPABILITY_WHEELS 1u /* drives and encoders */
#define OUTRIDER_CAPABILITY_IMU 2u /* acceleration and turn rate */
#define OUTRIDER_CAPABILITY_BATTERY 4u /* voltage and current */
#define OUTRIDER_CAPABILITY_BUMPER 8u /* contact strips */
#define OUTRIDER_CAPABILITY_EMERGENCY_STOP 16u /* a stop input of its own */
#define OUTRIDER_CAPABILITY_UPDATE 32u /* two firmware slots */
#define OUTRIDER_CAPABILITY_SIGNATURE 64u /* checks image signatures itself; without it, it takes no update */

#define OUTRIDER_FAULT_EMERGENCY_STOP 1u /* the emergency stop was pressed */
#define OUTRIDER_FAULT_BUMPER 2u /* a contact strip was pressed */
#define OUTRIDER_FAULT_BROWNOUT 4u /* voltage below battery_min_v for 20 ms */
#define OUTRIDER_FAULT_OVERCURRENT 8u /* a motor above current_max_a for 50 ms */
#define OUTRIDER_FAULT_SENSOR 16u /* a sensor gave no finite value, or stopped answering */
#define OUTRIDER_FAULT_STORAGE 32u /* the stored parameters were damaged; the built-in ones are used */

#define OUTRIDER_CODE_HELLO 0x01u
#define OUTRIDER_CODE_STOP 0x02u
#define OUTRIDER_CODE_VELOCITY_COMMAND 0x10u
#define OUTRIDER_CODE_ARM 0x11u
#define OUTRIDER_CODE_DISARM 0x12u
#define OUTRIDER_CODE_CLEAR_FAULTS 0x13u
#define OUTRIDER_CODE_HEARTBEAT 0x14u
#define OUTRIDER_CODE_PARAMETER_GET 0x20u
#define OUTRIDER_CODE_PARAMETER_SET 0x21u
#define OUTRIDER_CODE_TIME_REQUEST 0x28u
#define OUTRIDER_CODE_INFO_REQUEST 0x29u
#define OUTRIDER_CODE_UPDATE_BEGIN 0x30u
#define OUTRIDER_CODE_UPDATE_BLOCK 0x31u
#define OUTRIDER_CODE_UPDATE_VERIFY 0x32u
#define OUTRIDER_CODE_UPDATE_SWITCH 0x33u
#define OUTRIDER_CODE_ACKNOWLEDGE 0x40u
#define OUTRIDER_CODE_TIME_REPLY 0x41u
#define OUTRIDER_CODE_FIRMWARE_INFO 0x42u
#define OUTRIDER_CODE_STATUS 0x50u
#define OUTRIDER_CODE_WHEELS 0x51u
#define OUTRIDER_CODE_IMU 0x52u
#define OUTRIDER_CODE_BATTERY 0x53u
#define OUTRIDER_CODE_BUMPER 0x54u
#define OUTRIDER_CODE_LOG_LINE 0x55u

/* Opens a session. The board answers with its own, in which `session` is not 0 when the schemas are the same. A new nonce while armed stops the robot. */
struct outrider_hello {
    uint16_t revision; /* the schema's running number: the lower one is the older side */
    uint32_t schema; /* first 32 bit of the schema's SHA-256 */
    uint32_t nonce; /* the host's choice, echoed */
    uint32_t session; /* what the board's hello gave; 0 is none */
    uint32_t capabilities; /* bits, see Capability */
};

/* Stop now and disarm. Needs no session and is never refused. */
struct outrider_stop {
    uint8_t reason; /* free, for the log */
};

/* How to drive. Executed only while armed, fresh and new: age_us + transit < expiry_us, sequence above all before. Nothing is executed twice. */
struct outrider_velocity_command {
    uint32_t session; /* what the board's hello gave; 0 is none */
    uint32_t sequence; /* one counter of the host for all ordered frames of a session */
    uint32_t sent_us; /* us; the board's clock when it was sent, as the host estimates it, low 32 bits */
    uint32_t age_us; /* us; 0 .. 1e+06; since the decision was made, when sent */
    uint32_t expiry_us; /* us; 1 .. 200000; how long after the decision it may be executed */
    float linear_mps; /* m/s; -2 .. 2; forward (REP 103) */
    float angular_radps; /* rad/s; -4 .. 4; counter-clockwise (REP 103) */
};

/* Allow motion. Only while disarmed, without faults, and at most 200 ms old. */
struct outrider_arm {
    uint32_t session; /* what the board's hello gave; 0 is none */
    uint32_t sequence; /* one counter of the host for all ordered frames of a session */
    uint32_t sent_us; /* us; the board's clock when it was sent, as the host estimates it, low 32 bits */
};

/* Stop and forbid motion. */
struct outrider_disarm {
    uint32_t session; /* what the board's hello gave; 0 is none */
    uint32_t sequence; /* one counter of the host for all ordered frames of a session */
};

/* Forget faults whose cause is gone. The board stays disarmed. */
struct outrider_clear_faults {
    uint32_t session; /* what the board's hello gave; 0 is none */
    uint32_t sequence; /* one counter of the host for all ordered frames of a session */
    uint32_t mask;
};

/* The side is alive. It never keeps the robot moving: only commands do. */
struct outrider_heartbeat {
    uint32_t session; /* what the board's hello gave; 0 is none */
    uint32_t beat; /* counts up */
};

/* Ask for a parameter. */
struct outrider_parameter_get {
    uint32_t session; /* what the board's hello gave; 0 is none */
    uint32_t sequence; /* one counter of the host for all ordered frames of a session */
    uint8_t id; /* see Parameters */
};

/* Change a parameter. Only while disarmed; stored before it is acknowledged. */
struct outrider_parameter_set {
    uint32_t session; /* what the board's hello gave; 0 is none */
    uint32_t sequence; /* one counter of the host for all ordered frames of a session */
    uint8_t id; /* see Parameters */
    uint8_t kind; /* Kind */
    uint32_t bits; /* the value: u32, or an f32's bits */
};

/* What time is it? (NTP's exchange, RFC 5905 section 8.) */
struct outrider_time_request {
    uint64_t host_us; /* us; the host's clock, echoed */
};

/* Which firmware is this? */
struct outrider_info_request {
    uint32_t session; /* what the board's hello gave; 0 is none */
};

/* Announce an image. An interrupted one with the same digest goes on where it stopped. */
struct outrider_update_begin {
    uint32_t session; /* what the board's hello gave; 0 is none */
    uint32_t sequence; /* one counter of the host for all ordered frames of a session */
    uint32_t version; /* 1 .. 4.29497e+09; must be above the running one's, and not below any installed before */
    uint32_t size; /* byte */
    uint8_t digest[32]; /* SHA-256 of the image */
    uint8_t signature[64]; /* Ed25519, see firmware_interface/update/image.py; checked before anything is written */
};

/* A piece of the image, in order. */
struct outrider_update_block {
    uint32_t session; /* what the board's hello gave; 0 is none */
    uint32_t sequence; /* one counter of the host for all ordered frames of a session */
    uint32_t offset; /* byte */
    uint8_t length; /* byte; 1 .. 128 */
    uint8_t data[128]; /* zeros after `length` */
};

/* Compare the digest of what was written with the announced and signed one. */
struct outrider_update_verify {
    uint32_t session; /* what the board's hello gave; 0 is none */
    uint32_t sequence; /* one counter of the host for all ordered frames of a session */
};

/* Start the verified image from now on. */
struct outrider_update_switch {
    uint32_t session; /* what the board's hello gave; 0 is none */
    uint32_t sequence; /* one counter of the host for all ordered frames of a session */
};

/* The answer to an ordered frame other than velocity_command. */
struct outrider_acknowledge {
    uint32_t session; /* what the board's hello gave; 0 is none */
    uint32_t sequence; /* one counter of the host for all ordered frames of a session */
    uint8_t code; /* the frame that is answered */
    uint8_t result; /* Result */
    uint32_t value; /* parameter: its bits; update: the next offset */
};

/* The board's clock. */
struct outrider_time_reply {
    uint64_t host_us; /* us; from the request */
    uint64_t received_us; /* us; the board's clock when the request came */
    uint64_t sent_us; /* us; the board's clock when this left */
};

/* What the board runs. */
struct outrider_firmware_info {
    uint32_t version;
    uint8_t slot; /* 0 .. 1 */
    uint32_t boots; /* how often it has started */
    uint8_t digest[32]; /* of the running image; zeros as shipped */
    uint8_t board[16]; /* name, ASCII, zero padded */
};

/* What the board does, and what it has counted since its start. */
struct outrider_status {
    uint32_t session; /* what the board's hello gave; 0 is none */
    uint32_t time_us; /* us; the board's clock, low 32 bits */
    uint8_t state; /* State */
    uint8_t stop_reason; /* StopReason; why it last left armed */
    uint32_t faults; /* bits, see Fault */
    uint32_t sequence_executed; /* of the last velocity command */
    uint32_t commands_executed;
    uint32_t commands_stale;
    uint32_t commands_repeated; /* sequence not above all before */
    uint32_t commands_refused; /* not armed, or another session's */
    uint32_t frames_good;
    uint32_t frames_bad; /* CRC, COBS, length, range */
    uint32_t frames_unsent; /* no room to send */
};

/* Wheel encoders and drives. */
struct outrider_wheels {
    uint32_t time_us; /* us; the board's clock, low 32 bits */
    int32_t left_ticks; /* tick; wraps */
    int32_t right_ticks; /* tick; wraps */
    float left_radps; /* rad/s; -500 .. 500 */
    float right_radps; /* rad/s; -500 .. 500 */
    float left_wanted_radps; /* rad/s; -500 .. 500; what the speed loop is asked for */
    float right_wanted_radps; /* rad/s; -500 .. 500; what the speed loop is asked for */
    float left_current_a; /* A; -200 .. 200 */
    float right_current_a; /* A; -200 .. 200 */
};

/* Acceleration and turn rate in the base frame (REP 103). */
struct outrider_imu {
    uint32_t time_us; /* us; the board's clock, low 32 bits */
    float acceleration_x_mps2; /* m/s^2; -200 .. 200 */
    float acceleration_y_mps2; /* m/s^2; -200 .. 200 */
    float acceleration_z_mps2; /* m/s^2; -200 .. 200 */
    float turn_rate_x_radps; /* rad/s; -50 .. 50 */
    float turn_rate_y_radps; /* rad/s; -50 .. 50 */
    float turn_rate_z_radps; /* rad/s; -50 .. 50 */
};

/* The battery. */
struct outrider_battery {
    uint32_t time_us; /* us; the board's clock, low 32 bits */
    float voltage_v; /* V; 0 .. 100 */
    float current_a; /* A; -200 .. 200; positive: discharging */
    float charge; /* share; 0 .. 1 */
};

/* Contact strips and the emergency stop. */
struct outrider_bumper {
    uint32_t time_us; /* us; the board's clock, low 32 bits */
    uint8_t bumpers; /* bits: 1 front, 2 left, 4 right, 8 rear */
    uint8_t emergency_stop; /* 0 .. 1; 1: pressed, or its wire is broken */
};

/* A line of text. */
struct outrider_log_line {
    uint32_t time_us; /* us; the board's clock, low 32 bits */
    uint8_t level; /* Level */
    uint8_t length; /* byte; 0 .. 96 */
    uint8_t text[96]; /* ASCII, zeros after `length` */
};

struct outrider_frame {
    uint8_t code;
    union {
        struct outrider_hello hello;
        struct outrider_stop stop;
        struct outrider_velocity_command velocity_command;
        struct outrider_arm arm;
        struct outrider_disarm disarm;
        struct outrider_clear_faults clear_faults;
        struct outrider_heartbeat heartbeat;
        struct outrider_parameter_get parameter_get;
        struct outrider_parameter_set parameter_set;
        struct outrider_time_request time_request;
        struct outrider_info_request info_request;
        struct outrider_update_begin update_begin;
        struct outrider_update_block update_block;
        struct outrider_update_verify update_verify;
        struct outrider_update_switch update_switch;
        struct outrider_acknowledge acknowledge;
        struct outrider_time_reply time_reply;
        struct outrider_firmware_info firmware_info;
        struct outrider_status status;
        struct outrider_wheels wheels;
        struct outrider_imu imu;
        struct outrider_battery battery;
        struct outrider_bumper bumper;
        struct outrider_log_line log_line;
    } as;
};

struct outrider_parameter_entry {
    uint8_t id;
    uint8_t kind;
    uint32_t low_bits;
    uint32_t high_bits;
    uint32_t default_bits;
};

#define OUTRIDER_PARAMETER_SPEED_MAX_MPS 0 /* place in the table */
#define OUTRIDER_PARAMETER_REVERSE_MAX_MPS 1 /* place in the table */
#define OUTRIDER_PARAMETER_TURN_RATE_MAX_RADPS 2 /* place in the table */
#define OUTRIDER_PARAMETER_ACCELERATION_MAX_MPS2 3 /* place in the table */
#define OUTRIDER_PARAMETER_DECELERATION_MAX_MPS2 4 /* place in the table */
#define OUTRIDER_PARAMETER_TURN_ACCELERATION_MAX_RADPS2 5 /* place in the table */
#define OUTRIDER_PARAMETER_JERK_MAX_MPS3 6 /* place in the table */
#define OUTRIDER_PARAMETER_TURN_JERK_MAX_RADPS3 7 /* place in the table */
#define OUTRIDER_PARAMETER_WHEEL_RADIUS_M 8 /* place in the table */
#define OUTRIDER_PARAMETER_WHEEL_TRACK_M 9 /* place in the table */
#define OUTRIDER_PARAMETER_WHEEL_FEED_FORWARD 10 /* place in the table */
#define OUTRIDER_PARAMETER_WHEEL_P 11 /* place in the table */
#define OUTRIDER_PARAMETER_WHEEL_I 12 /* place in the table */
#define OUTRIDER_PARAMETER_WHEEL_D 13 /* place in the table */
#define OUTRIDER_PARAMETER_EFFORT_MAX 14 /* place in the table */
#define OUTRIDER_PARAMETER_WATCHDOG_US 15 /* place in the table */
#define OUTRIDER_PARAMETER_BATTERY_MIN_V 16 /* place in the table */
#define OUTRIDER_PARAMETER_CURRENT_MAX_A 17 /* place in the table */
#define OUTRIDER_PARAMETER_WHEELS_HZ 18 /* place in the table */
#define OUTRIDER_PARAMETER_IMU_HZ 19 /* place in the table */
#define OUTRIDER_PARAMETER_COUNT 20

extern const struct outrider_parameter_entry outrider_parameters[OUTRIDER_PARAMETER_COUNT];

/* Code and fields, without CRC. Returns the bytes written (at most OUTRIDER_RAW_MAX_BYTES), 0 when a
   field is out of its range or the code unknown. */
size_t outrider_encode(const struct outrider_frame *frame, uint8_t *raw);
enum outrider_verdict outrider_decode(const uint8_t *raw, size_t size, struct outrider_frame *frame);
bool outrider_is_ordered(uint8_t code);
bool outrider_is_for_board(uint8_t code);

#endif
