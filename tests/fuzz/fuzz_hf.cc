// A Hugging Face directory: config.json, index, names, shapes and FP8 scales; weights that are finite, or a refusal.
#include <cmath>
#include <cstring>
#include <vector>

#include "base/check.h"
#include "tests/fuzz/hf_input.h"
#include "tests/fuzz/memory_files.h"
#include "tests/fuzz/target.h"
#include "trainer/export/hf_weights.h"
#include "trainer/export/import_hf.h"

namespace shoestring {
namespace {

// Whole, and again in two pieces.
void ReadAll(HfWeights& weights, bool mtp) {
  for (const Parameter& p : weights.table()) {
    if (p.is_mtp && !mtp) continue;
    const int64_t half = p.elements() / 2;
    std::vector<float> whole(p.elements()), pieces(p.elements());
    if (!weights.Read(p, 0, p.elements(), reinterpret_cast<char*>(whole.data())).ok()) continue;
    for (const float value : whole) CHECK(std::isfinite(value));
    CHECK(weights.Read(p, half, p.elements() - half, reinterpret_cast<char*>(pieces.data() + half)).ok());
    CHECK(weights.Read(p, 0, half, reinterpret_cast<char*>(pieces.data())).ok());
    CHECK_EQ(std::memcmp(whole.data(), pieces.data(), whole.size() * sizeof(float)), 0);
  }
}

}  // namespace
}  // namespace shoestring

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace shoestring;  // NOLINT: this file is one function
  static const auto* const model = new config::ModelConfig(FuzzedHfModel());
  MemoryFiles files(SplitHfInput(Bytes(data, size)));
  ReadHfModel(files, kHfDirectory).status().IgnoreError();
  for (const bool mtp : {true, false}) {
    const auto weights = HfWeights::Open(files, kHfDirectory, *model, {.mtp = mtp});
    if (weights.ok()) ReadAll(**weights, mtp);
  }
  return 0;
}
