// Names of released tensors, and the conversion of their elements.
#include "trainer/export/hf_tensors.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "base/check.h"

namespace shoestring {
namespace {

constexpr const char* kEmbedding = "model.embed_tokens.weight";
constexpr const char* kHead = "lm_head.weight";

// What DeepSeek-V3's release quantises; embedding, head, norms, router and the MTP modules' eh_proj stay as they are.
constexpr const char* kLinear[] = {
    ".q_proj.weight", ".q_a_proj.weight",  ".q_b_proj.weight", ".kv_a_proj_with_mqa.weight", ".kv_b_proj.weight",
    ".o_proj.weight", ".gate_proj.weight", ".up_proj.weight",  ".down_proj.weight"};

size_t IndexOf(const std::vector<Parameter>& table, const std::string& name) {
  for (size_t i = 0; i < table.size(); ++i) {
    if (table[i].name == name) return i;
  }
  CHECK_EQ(name, std::string("a parameter of the table"));
  return 0;
}

HfTensor Make(std::string name, const Parameter& p, size_t index, int64_t first_row, int64_t rows) {
  HfTensor tensor;
  tensor.name = std::move(name);
  // A matrix may have one row; what is not decayed is a vector.
  tensor.shape = p.decay ? std::vector<int64_t>{rows, p.cols} : std::vector<int64_t>{p.cols};
  tensor.parameter = index;
  tensor.first_row = first_row;
  tensor.rows = rows;
  tensor.cols = p.cols;
  tensor.keeps_f32 = !p.trained;
  tensor.is_linear = std::any_of(std::begin(kLinear), std::end(kLinear),
                                 [&](const char* suffix) { return absl::EndsWith(tensor.name, suffix); });
  return tensor;
}

void AddParameter(const Parameter& p, size_t index, std::vector<HfTensor>& tensors) {
  if (p.parts.empty()) {
    tensors.push_back(Make(p.name, p, index, 0, p.stack * p.rows));
    return;
  }
  for (int64_t e = 0; e < p.stack; ++e) {
    for (const Part& part : p.parts) {
      tensors.push_back(Make(absl::StrReplaceAll(part.name, {{"{e}", absl::StrCat(e)}}), p, index,
                             e * p.rows + part.first_row, part.rows));
    }
  }
}

void AddCopy(const std::vector<Parameter>& table, int layer, const char* original, const char* name,
             std::vector<HfTensor>& tensors) {
  const size_t index = IndexOf(table, original);
  tensors.push_back(Make(absl::StrCat("model.layers.", layer, ".", name), table[index], index, 0, table[index].rows));
  tensors.back().is_copy = true;
}

}  // namespace

bool IsDeepseekV2(const config::ModelConfig& model) {
  return model.has_moe() && model.moe().gate() == config::MoeConfig::SOFTMAX;
}

std::vector<HfTensor> HfTensorsOf(const config::ModelConfig& model, const std::vector<Parameter>& table,
                                  const HfTensorOptions& options) {
  std::vector<HfTensor> tensors;
  for (size_t i = 0; i < table.size(); ++i) {
    const Parameter& p = table[i];
    if (p.is_mtp && !options.mtp) continue;
    if (!p.trained && !options.routing_biases) continue;
    AddParameter(p, i, tensors);
  }
  for (int k = 0; options.mtp && k < model.mtp_depth(); ++k) {
    AddCopy(table, model.layers() + k, kEmbedding, "embed_tokens.weight", tensors);
    AddCopy(table, model.layers() + k, kHead, "shared_head.head.weight", tensors);
  }
  return tensors;
}

std::string HfScaleName(const std::string& weight) { return absl::StrCat(weight, "_scale_inv"); }

void ConvertElements(const char* from, DType from_dtype, char* to, DType to_dtype, int64_t elements) {
  if (from_dtype == to_dtype) {
    std::memcpy(to, from, static_cast<size_t>(elements * SizeOf(to_dtype)));
    return;
  }
  const bool narrows = from_dtype == DType::kF32 && to_dtype == DType::kBF16;
  CHECK(narrows || (from_dtype == DType::kBF16 && to_dtype == DType::kF32));
  for (int64_t i = 0; i < elements; ++i) {
    // By memcpy: bytes out of a file need not be aligned.
    if (narrows) {
      float value = 0;
      std::memcpy(&value, from + i * 4, 4);
      const BF16 rounded(value);
      std::memcpy(to + i * 2, &rounded.bits, 2);
    } else {
      BF16 value;
      std::memcpy(&value.bits, from + i * 2, 2);
      const auto widened = static_cast<float>(value);
      std::memcpy(to + i * 4, &widened, 4);
    }
  }
}

}  // namespace shoestring
