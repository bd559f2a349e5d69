// The largest sizes that the operations take, on every backend. They bound scratch that is taken once and arrays on the
// stack; models that go beyond are refused before a run starts (trainer/support.h).
#pragma once

#include <cstdint>

namespace shoestring {

inline constexpr int64_t kMaxPromotionInterval = 384;  // Fp8Accumulation
inline constexpr int64_t kMaxHeadDim = 384;            // of queries and keys with the rotated part; of values
inline constexpr int64_t kMaxExperts = 4096;           // of a gate; V3 has 256
inline constexpr int64_t kMaxChosenExperts = 64;       // by a token; V3: 8
inline constexpr int64_t kMaxQuantisedColumns = int64_t{1} << 16;  // of an activation that is quantised as it is made

}  // namespace shoestring
