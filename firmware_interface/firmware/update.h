/* Firmware updates: two slots, written a block at a time, verified, then switched by one record. The running slot is
   never written, and nothing is written for an image that the trusted key has not signed for this board. */
#ifndef OUTRIDER_UPDATE_H
#define OUTRIDER_UPDATE_H

#include "generated/outrider_protocol.h"
#include "hal.h"
#include "sha256.h"
#include "trust.h"

#define UPDATE_HEADER_BYTES 128u

struct update_image {
    uint32_t version;
    uint32_t size; /* 0: as shipped, not checked */
    uint8_t digest[SHA256_BYTES];
};

enum update_state { UPDATE_IDLE, UPDATE_TAKING, UPDATE_VERIFYING, UPDATE_VERIFIED };

struct update {
    struct trust trust;
    uint32_t slot; /* the running one */
    struct update_image running;
    enum update_state state;
    struct update_image coming;
    uint8_t signature[SIGNATURE_BYTES];
    uint32_t offset; /* the next byte of the image */
    uint32_t checked;
    struct sha256 hash;
};

/* Which slot to start: the newest record whose image is whole. A bootloader calls this, and the core to know. */
void update_boot(struct update *update);

/* What is signed, as firmware_interface/update/image.py packs it: magic, version, size, digest, the board's name. */
#define UPDATE_SIGNED_BYTES 60u
void update_signed(const struct update_image *image, uint8_t message[UPDATE_SIGNED_BYTES]);

enum outrider_result update_begin(struct update *update, const struct outrider_update_begin *frame);
enum outrider_result update_block(struct update *update, const struct outrider_update_block *frame);

/* Begin to verify; update_step goes on and says when it is done. */
enum outrider_result update_verify(struct update *update);
bool update_step(struct update *update, enum outrider_result *result);
enum outrider_result update_switch(struct update *update);

#endif
