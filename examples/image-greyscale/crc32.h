/* The checksum of PNG chunks. Source: PNG specification, annex D. */

#ifndef CRC32_H
#define CRC32_H

#include <stddef.h>
#include <stdint.h>

static uint32_t crc32(const uint8_t *bytes, size_t length)
{
    static uint32_t table[256];
    if (!table[1])
        for (uint32_t i = 0; i < 256; i++) {
            table[i] = i;
            for (int bit = 0; bit < 8; bit++)
                table[i] = table[i] & 1 ? table[i] >> 1 ^ 0xEDB88320 : table[i] >> 1;
        }
    uint32_t crc = 0xFFFFFFFF;
    for (size_t i = 0; i < length; i++)
        crc = crc >> 8 ^ table[(crc ^ bytes[i]) & 0xFF];
    return ~crc;
}

#endif
