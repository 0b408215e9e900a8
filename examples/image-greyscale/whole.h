/* Which kind of file it is, and whether all of it is there.
 *
 * stb_image checks no checksum, and some of its versions fill in what is missing of a JPEG: a
 * broken file would become a wrong picture instead of an error. */

#ifndef WHOLE_H
#define WHOLE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "crc32.h"

enum {
    PNG_HEADER = 33, /* signature and IHDR chunk, which has width and height */
    CHUNK_FRAME = 12, /* length, type and checksum of a chunk */
    MARKER_RST0 = 0xD0,
    MARKER_SOI = 0xD8,
    MARKER_EOI = 0xD9,
    MARKER_SOS = 0xDA,
    /* Encoders make about ten. Each costs a pass over the picture, however few bytes it has. */
    MAX_SCANS = 100,
};

static uint32_t big_endian_32(const uint8_t *bytes)
{
    return (uint32_t)bytes[0] << 24 | bytes[1] << 16 | bytes[2] << 8 | bytes[3];
}

static int is_png(const uint8_t *bytes, size_t length)
{
    return length >= PNG_HEADER && !memcmp(bytes, "\x89PNG\r\n\x1a\n\0\0\0\rIHDR", 16);
}

static int is_jpeg(const uint8_t *bytes, size_t length)
{
    return length >= 3 && !memcmp(bytes, "\xFF\xD8\xFF", 3);
}

/* Return what is wrong with the chunks of a PNG, or NULL. */
static const char *check_png(const uint8_t *bytes, size_t length)
{
    size_t at = 8;
    while (length - at >= CHUNK_FRAME) {
        const uint8_t *type = bytes + at + 4;
        size_t size = big_endian_32(bytes + at);
        if (size > length - at - CHUNK_FRAME)
            break;
        if (crc32(type, 4 + size) != big_endian_32(type + 4 + size))
            return "the checksum of a PNG chunk is wrong";
        if (!memcmp(type, "IEND", 4))
            return NULL;
        at += CHUNK_FRAME + size;
    }
    return "the PNG file ends before its picture does";
}

/* Return what is wrong with the segments of a JPEG, or NULL. */
static const char *check_jpeg(const uint8_t *bytes, size_t length)
{
    int scans = 0;
    size_t at = 0;
    while (at + 1 < length) {
        int marker = bytes[at + 1];
        if (bytes[at] != 0xFF || marker == 0xFF) {
            at++; /* picture data, or a fill byte */
            continue;
        }
        at += 2;
        if (marker == MARKER_EOI)
            return NULL;
        if (marker <= 1 || (marker >= MARKER_RST0 && marker <= MARKER_SOI))
            continue; /* these stand alone */
        if (marker == MARKER_SOS && ++scans > MAX_SCANS)
            return "the JPEG has more than 100 scans";
        if (at + 1 < length)
            at += bytes[at] << 8 | bytes[at + 1];
    }
    return "the JPEG file ends before its picture does";
}

#endif
