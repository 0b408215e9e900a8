/* A JPEG or PNG in, the same picture as a greyscale PNG out: the module of image-greyscale-lambda.
 *
 * It imports nothing, so it can reach nothing but its own memory: no file, clock or network. The
 * host writes the picture to where `alloc` says, asks `measure` for its size, and only then has it
 * decoded by `convert`. Both return 1, or 0 and leave the reason in `error`.
 *
 * The work is done by stb_image (decoding) and stb_image_write (PNG), with one addition: whole.h
 * finds broken files, which stb_image would decode to a wrong picture. */

#include <stdint.h>
#include <stdlib.h>

#include "crc32.h"
#include "whole.h"

/* assert() would print, and so import the printing. */
#define STBI_ASSERT(holds) ((holds) ? (void)0 : __builtin_trap())
#define STBI_FAILURE_USERMSG
#define STBI_NO_HDR
#define STBI_NO_LINEAR
#define STBI_NO_STDIO
#define STBI_ONLY_JPEG
#define STBI_ONLY_PNG
#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_STATIC
#include <stb/stb_image.h>

#define STBIW_ASSERT STBI_ASSERT
#define STBIW_CRC32(bytes, length) crc32(bytes, length)
#define STBI_WRITE_NO_STDIO
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STB_IMAGE_WRITE_STATIC
#include <stb/stb_image_write.h>

#define EXPORT(name) __attribute__((export_name(#name), used)) name

static const char *failure;
static uint32_t picture_width, picture_height;
static uint8_t *png;
static int png_length;

static int fail(const char *reason)
{
    failure = reason;
    return 0;
}

/* Decode to 8 bits a channel: grey, grey and alpha, RGB, or RGB and alpha. */
static uint8_t *decode(const uint8_t *bytes, int length, int *channels)
{
    const char *broken = is_png(bytes, length) ? check_png(bytes, length)
                                               : check_jpeg(bytes, length);
    if (broken) {
        fail(broken);
        return NULL;
    }
    int width, height;
    uint8_t *pixels = stbi_load_from_memory(bytes, length, &width, &height, channels, 0);
    if (!pixels)
        fail(stbi_failure_reason());
    else if ((uint32_t)width != picture_width || (uint32_t)height != picture_height)
        __builtin_trap(); /* The host has agreed to another size. */
    return pixels;
}

/* ITU-R 601-2 luma, rounded as Pillow rounds it: convert("L") gives the same. */
static inline uint8_t luma(const uint8_t *rgb)
{
    return (19595u * rgb[0] + 38470u * rgb[1] + 7471u * rgb[2] + 0x8000) >> 16;
}

/* Turn RGB into grey in place, and return how many channels are left; alpha is kept. */
static int make_grey(uint8_t *pixels, size_t count, int channels)
{
    if (channels == 3) {
        for (size_t i = 0; i < count; i++)
            pixels[i] = luma(pixels + 3 * i);
        return 1;
    }
    if (channels == 4) {
        for (size_t i = 0; i < count; i++) {
            pixels[2 * i] = luma(pixels + 4 * i);
            pixels[2 * i + 1] = pixels[4 * i + 3];
        }
        return 2;
    }
    return channels;
}

/* Return memory for the picture, or 0 when there is none. */
void *EXPORT(alloc)(size_t length)
{
    return malloc(length);
}

/* Give back what `alloc` or `result` returned. */
void EXPORT(release)(void *memory)
{
    free(memory);
}

/* Read width and height from the header, decoding nothing. */
int EXPORT(measure)(const uint8_t *bytes, int length)
{
    if (is_png(bytes, length)) {
        /* Not stbi_info: it fails for the very pictures that are too large. */
        picture_width = big_endian_32(bytes + 16);
        picture_height = big_endian_32(bytes + 20);
        return 1;
    }
    if (!is_jpeg(bytes, length))
        return fail("it is neither JPEG nor PNG");
    int width, height, channels;
    if (!stbi_info_from_memory(bytes, length, &width, &height, &channels))
        return fail(stbi_failure_reason());
    picture_width = width;
    picture_height = height;
    return 1;
}

uint32_t EXPORT(width)(void)
{
    return picture_width;
}

uint32_t EXPORT(height)(void)
{
    return picture_height;
}

/* Decode the measured picture and make the PNG. */
int EXPORT(convert)(const uint8_t *bytes, int length)
{
    int channels;
    uint8_t *pixels = decode(bytes, length, &channels);
    if (!pixels)
        return 0;
    channels = make_grey(pixels, (size_t)picture_width * picture_height, channels);
    png = stbi_write_png_to_mem(pixels, 0, picture_width, picture_height, channels, &png_length);
    stbi_image_free(pixels);
    return png ? 1 : fail("Out of memory");
}

uint8_t *EXPORT(result)(void)
{
    return png;
}

int EXPORT(result_length)(void)
{
    return png_length;
}

/* Return why the last call failed: text that ends with a zero byte. */
const char *EXPORT(error)(void)
{
    return failure ? failure : "";
}
