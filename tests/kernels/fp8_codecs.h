// The vector codecs of the small formats as functions of arrays: compiled once a level by fp8_codecs.cc.
#pragma once

#include <cstdint>

namespace shoestring {

// Codes of eight bits lie in bytes, those of twelve in pairs of bytes.
struct Fp8Codecs {
  void (*encode_e4m3)(const float* x, int64_t count, uint8_t* codes);
  void (*encode_e5m2)(const float* x, int64_t count, uint8_t* codes);
  void (*encode_e5m6)(const float* x, int64_t count, uint16_t* codes);
  void (*decode_e4m3)(const uint8_t* codes, int64_t count, float* x);
  void (*decode_e5m2)(const uint8_t* codes, int64_t count, float* x);
};
Fp8Codecs PortableCodecs();
Fp8Codecs Avx2Codecs();
Fp8Codecs Avx512Codecs();

}  // namespace shoestring
