// Tests of FP8 directories against plain loops over blocks and a table of all codes made by the format's definition.
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/base/temp_dir.h"
#include "tests/trainer/export/hf_fixture.h"
#include "trainer/checkpoint/save.h"
#include "trainer/export/fp8_blocks.h"

namespace shoestring {
namespace {

using ::testing::HasSubstr;

// Matrices of several blocks, none of them a multiple of 128: 160 x 160, 300 x 160, 70 x 160, ...
config::RunConfig BlockyConfig(const std::vector<std::string>& overrides = {}) {
  std::vector<std::string> all = {"model.hidden=160", "model.dense_ffn=300", "model.moe.expert_ffn=130",
                                  "model.attention.q_lora_rank=140"};
  all.insert(all.end(), overrides.begin(), overrides.end());
  return SmallConfig(all);
}

// Value of a code without sign, by the definition of the format: OCP 8-bit floating point specification, table 1.
double ValueOf(int code) {
  const int exponent = code >> 3, fraction = code & 7;
  return exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, exponent - 10);
}

// The nearest of all finite codes; of two equally near ones the even one.
uint8_t NearestCode(float value) {
  const double magnitude = std::fabs(static_cast<double>(value));
  int best = 0;
  for (int code = 1; code <= 0x7e; ++code) {
    const double here = std::fabs(ValueOf(code) - magnitude), there = std::fabs(ValueOf(best) - magnitude);
    if (here < there || (here == there && code % 2 == 0)) best = code;
  }
  return static_cast<uint8_t>(best | (std::signbit(value) ? 0x80 : 0));
}

float PlainScale(double amax, bool power_of_two) {
  const float scale = static_cast<float>(amax) / 448.0f;
  if (scale == 0) return 1;
  if (!power_of_two) return scale;
  double power = std::ldexp(1.0, -149);
  while (power < scale) power *= 2;
  return static_cast<float>(power);
}

// What a matrix of BF16 numbers must become: scales and codes, block after block.
void PlainQuantize(const std::vector<float>& values, int64_t rows, int64_t cols, bool power_of_two,
                   std::vector<float>& scales, std::string& codes) {
  codes.assign(values.size(), '\0');
  scales.clear();
  for (int64_t top = 0; top < rows; top += 128) {
    for (int64_t left = 0; left < cols; left += 128) {
      double amax = 0;
      for (int64_t r = top; r < std::min(rows, top + 128); ++r) {
        for (int64_t c = left; c < std::min(cols, left + 128); ++c) {
          amax = std::max(amax, std::fabs(static_cast<double>(values[r * cols + c])));
        }
      }
      scales.push_back(PlainScale(amax, power_of_two));
      for (int64_t r = top; r < std::min(rows, top + 128); ++r) {
        for (int64_t c = left; c < std::min(cols, left + 128); ++c) {
          codes[r * cols + c] = static_cast<char>(NearestCode(values[r * cols + c] / scales.back()));
        }
      }
    }
  }
}

std::vector<float> Floats(const RawTensor& tensor) {
  std::vector<float> values(tensor.bytes.size() / (tensor.dtype == "F32" ? 4 : 2));
  for (size_t i = 0; i < values.size(); ++i) {
    uint32_t bits = 0;
    if (tensor.dtype == "F32") {
      std::memcpy(&bits, tensor.bytes.data() + i * 4, 4);
    } else {
      uint16_t half = 0;
      std::memcpy(&half, tensor.bytes.data() + i * 2, 2);
      bits = static_cast<uint32_t>(half) << 16;
    }
    std::memcpy(&values[i], &bits, 4);
  }
  return values;
}

void SpreadMagnitudes(Weights& weights) {
  uint64_t stream = 0;
  for (const Parameter& p : weights.table) {
    const Rng rng(3, RngPurpose::kTest, ++stream);
    auto* values = weights.views[p.name].as<float>();
    for (int64_t i = 0; i < p.elements(); ++i) {
      values[i] = static_cast<float>(rng.Normal(i) * std::ldexp(1.0, static_cast<int>(rng.Below(i, 24)) - 12));
    }
  }
}

class HfFp8Test : public testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(PowerOfTwo, HfFp8Test, testing::Bool());

TEST_P(HfFp8Test, EachLinearWeightIsItsBF16CopyQuantisedInItsOwnBlocks) {
  const config::ModelConfig model = BlockyConfig().model();
  Weights weights(model), read(model);
  SpreadMagnitudes(weights);
  const TempDir dir;
  Export(dir.File("bf16"), model, weights, {.dtype = DType::kBF16});
  Export(dir.File("fp8"), model, weights, {.dtype = DType::kE4M3, .power_of_two_scales = GetParam()});
  const RawTensors bf16 = ReadRaw(dir.File("bf16"));
  RawTensors fp8 = ReadRaw(dir.File("fp8"));
  RawTensors expected = bf16;  // what an import of the FP8 directory must give, in F32
  int quantised = 0;
  for (const auto& [name, tensor] : bf16) {
    const std::vector<float> values = Floats(tensor);
    const bool linear = name.find("_proj") != std::string::npos && name.find("eh_proj") == std::string::npos;
    if (!linear) {
      EXPECT_EQ(fp8[name].dtype, tensor.dtype) << name;
      EXPECT_EQ(fp8[name].bytes, tensor.bytes) << name;
      EXPECT_FALSE(fp8.contains(name + "_scale_inv")) << name;
      continue;
    }
    ++quantised;
    std::vector<float> scales;
    std::string codes;
    PlainQuantize(values, tensor.shape[0], tensor.shape[1], GetParam(), scales, codes);
    EXPECT_EQ(fp8[name].dtype, "F8_E4M3") << name;
    EXPECT_EQ(fp8[name].shape, tensor.shape) << name;
    EXPECT_EQ(fp8[name].bytes, codes) << name;
    EXPECT_EQ(fp8[name + "_scale_inv"].dtype, "F32") << name;
    EXPECT_EQ(fp8[name + "_scale_inv"].shape,
              (std::vector<int64_t>{(tensor.shape[0] + 127) / 128, (tensor.shape[1] + 127) / 128}))
        << name;
    EXPECT_EQ(Floats(fp8[name + "_scale_inv"]), scales) << name;
    std::vector<float> dequantised(values.size());
    const int64_t cols = tensor.shape[1], blocks = (cols + 127) / 128;
    for (int64_t i = 0; i < static_cast<int64_t>(values.size()); ++i) {
      const int code = static_cast<uint8_t>(codes[i]);
      const auto value = static_cast<float>(ValueOf(code & 127));
      dequantised[i] = (code & 128 ? -value : value) * scales[i / cols / 128 * blocks + i % cols / 128];
    }
    expected[name] = {"F32", tensor.shape,
                      std::string(reinterpret_cast<const char*>(dequantised.data()), dequantised.size() * 4)};
  }
  // 4 layers of attention (5 each), 1 dense (3), 3 of experts (4 + 1 shared, 3 each).
  EXPECT_EQ(quantised, 4 * 5 + 3 + 3 * 5 * 3);
  EXPECT_EQ(fp8.size(), bf16.size() + quantised);
  // In again: the plain loop's values to the bit.
  ASSERT_TRUE(ImportHf(Fs(), dir.File("fp8"), model, read.views, {}).ok());
  Export(dir.File("again"), model, read, {.dtype = DType::kF32});
  for (const auto& [name, tensor] : ReadRaw(dir.File("again"))) {
    EXPECT_TRUE(Floats(tensor) == Floats(expected[name])) << name;
  }
}

// The plain loops for files and the kernel that quantises for a step must not drift apart.
TEST_P(HfFp8Test, FilesHoldWhatTheBackendComputes) {
  constexpr int64_t kRows = 300, kCols = 160;
  std::vector<BF16> halves(kRows * kCols);
  std::vector<float> values(halves.size());
  const Rng rng(5, RngPurpose::kTest, 1);
  for (size_t i = 0; i < halves.size(); ++i) {
    halves[i] = BF16(static_cast<float>(rng.Normal(i) * std::ldexp(1.0, static_cast<int>(rng.Below(i, 40)) - 20)));
    values[i] = static_cast<float>(halves[i]);
  }
  const std::unique_ptr<Backend> backend = MakeCpuBackend({});
  const std::unique_ptr<Stream> stream = backend->MakeStream();
  std::vector<uint8_t> codes(halves.size()), file_codes(halves.size());
  std::vector<float> scales(3 * 2), file_scales(3 * 2);
  QuantizeArgs args;
  args.x = ConstView(reinterpret_cast<const std::byte*>(halves.data()), DType::kBF16, kRows, kCols);
  args.y = MutableOperand(View(reinterpret_cast<std::byte*>(codes.data()), DType::kE4M3, kRows, kCols),
                          View(reinterpret_cast<std::byte*>(scales.data()), DType::kF32, 3, 2),
                          Tile{kFp8Block, kFp8Block}, GetParam());
  backend->Quantize(*stream, args);
  backend->Synchronize(*stream);
  for (int64_t band = 0; band < 3; ++band) {
    const int64_t first = band * kFp8Block * kCols, rows = std::min(kFp8Block, kRows - band * kFp8Block);
    float* const band_scales = file_scales.data() + band * 2;
    ASSERT_TRUE(ScalesOfBand(values.data() + first, rows, kCols, GetParam(), band_scales));
    QuantizeBand(values.data() + first, rows, kCols, band_scales, file_codes.data() + first);
  }
  EXPECT_EQ(scales, file_scales);
  EXPECT_TRUE(codes == file_codes);
}

TEST_P(HfFp8Test, ConfigJsonSaysSo) {
  const config::ModelConfig model = SmallConfig().model();
  Weights weights(model);
  weights.Fill();
  const TempDir dir;
  Export(dir.File("hf"), model, weights, {.dtype = DType::kE4M3, .power_of_two_scales = GetParam()});
  const auto json = nlohmann::json::parse(*ReadFile(Fs(), dir.File("hf/config.json")));
  nlohmann::json expected = {
      {"activation_scheme", "dynamic"}, {"fmt", "e4m3"}, {"quant_method", "fp8"}, {"weight_block_size", {128, 128}}};
  if (GetParam()) expected["scale_fmt"] = "ue8m0";
  EXPECT_EQ(json["quantization_config"], expected);
  EXPECT_EQ(json["torch_dtype"], "bfloat16");
  EXPECT_TRUE(ReadHfModel(Fs(), dir.File("hf")).ok());
}

TEST(Fp8BlocksTest, EveryBF16NumberBecomesTheNearestCode) {
  for (const float scale : {1.0f, 0.37f, 0x1p-20f}) {
    for (uint32_t bits = 0; bits < 0x10000; ++bits) {
      BF16 half;
      half.bits = static_cast<uint16_t>(bits);
      const auto value = static_cast<float>(half);
      if (!std::isfinite(value)) continue;
      uint8_t code = 0;
      QuantizeBand(&value, 1, 1, &scale, &code);
      // A quotient that overflows is as large as any that saturates.
      const float quotient = std::clamp(value / scale, -1e6f, 1e6f);
      ASSERT_EQ(code, NearestCode(quotient)) << value << " / " << scale;
    }
  }
}

TEST(Fp8BlocksTest, ScalesOfExtremeBlocks) {
  EXPECT_EQ(Fp8Scale(0, false), 1);
  EXPECT_EQ(Fp8Scale(0, true), 1);
  EXPECT_EQ(Fp8Scale(std::numeric_limits<float>::denorm_min(), false), 1);  // the quotient underflows
  EXPECT_EQ(Fp8Scale(448, true), 1);
  EXPECT_EQ(Fp8Scale(449, true), 2);
  EXPECT_EQ(Fp8Scale(0x1p-133f, true), 0x1p-126f);  // the least BF16 number; its scale is no normal one
  EXPECT_EQ(Fp8Scale(0x1p-133f, false), 0x1p-133f / 448);
  EXPECT_EQ(Fp8Scale(3.38953139e38f, true), 0x1p120f);
}

TEST(HfFp8ExportTest, ZerosAndTheSmallestAndLargestNumbersComeBack) {
  const config::ModelConfig model = SmallConfig().model();
  Weights weights(model), read(model);
  const float kinds[] = {0.0f, 0x1p-133f, -0x1.fep127f};
  size_t next = 0;
  for (const Parameter& p : weights.table) {
    if (!p.trained) continue;
    auto* values = weights.views[p.name].as<float>();
    std::fill_n(values, p.elements(), kinds[next++ % 3]);
  }
  const TempDir dir;
  Export(dir.File("fp8"), model, weights, {.dtype = DType::kE4M3});
  ASSERT_TRUE(ImportHf(Fs(), dir.File("fp8"), model, read.views, {}).ok());
  for (const Parameter& p : weights.table) {
    const float wanted = *weights.views[p.name].as<float>(), got = *read.views[p.name].as<float>();
    // 448 times the quotient, rounded once more; of subnormal quotients the last place is coarse.
    EXPECT_NEAR(got / (wanted == 0 ? 1 : wanted), wanted == 0 ? 0 : 1, 1e-2) << p.name;
  }
}

TEST(HfFp8ExportTest, NumbersThatAreNotFiniteAreRefused) {
  const config::ModelConfig model = SmallConfig().model();
  Weights weights(model), read(model);
  weights.Fill();
  weights.views["model.layers.0.mlp.down_proj.weight"].as<float>()[7] = std::numeric_limits<float>::infinity();
  const TempDir dir;
  MemoryWeights source = weights.Source();
  const absl::Status refused = ExportHf(Fs(), dir.File("fp8"), model, source, {.dtype = DType::kE4M3}).status();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(refused.message()), HasSubstr("model.layers.0.mlp.down_proj.weight holds a number that is"));
  EXPECT_FALSE(Exists(Fs(), dir.File("fp8")));
  Export(dir.File("bf16"), model, weights, {.dtype = DType::kBF16});  // says what is there
  const absl::Status unread = ImportHf(Fs(), dir.File("bf16"), model, read.views, {}).status();
  EXPECT_THAT(std::string(unread.message()), HasSubstr("model.layers.0.mlp.down_proj.weight holds a number that is"));
}

TEST(HfFp8ExportTest, ScalesThatNobodyDividedByAreRefused) {
  const config::ModelConfig model = SmallConfig().model();
  Weights weights(model), read(model);
  weights.Fill();
  const TempDir dir;
  Export(dir.File("hf"), model, weights, {.dtype = DType::kE4M3});
  const RawTensors good = ReadRaw(dir.File("hf"));
  const std::string name = "model.layers.0.mlp.down_proj.weight_scale_inv";
  for (const float scale : {0.0f, -1.0f, std::nanf(""), std::numeric_limits<float>::infinity()}) {
    RawTensors bad = good;
    std::memcpy(bad.at(name).bytes.data(), &scale, sizeof(scale));
    WriteRaw(dir.File("hf/model.safetensors"), bad);
    const absl::Status refused = ImportHf(Fs(), dir.File("hf"), model, read.views, {}).status();
    EXPECT_EQ(refused.code(), absl::StatusCode::kDataLoss) << scale;
    EXPECT_THAT(std::string(refused.message()), HasSubstr(name + ": scale 0 is ")) << scale;
  }
}

TEST(HfFp8ExportTest, ACheckpointsRecipeDecidesThePowersOfTwo) {
  for (const bool power_of_two : {false, true}) {
    const config::RunConfig run =
        SmallConfig({absl::StrCat("precision.fp8.power_of_two_weight=", power_of_two ? "true" : "false")});
    Weights weights(run.model());
    weights.Fill();
    const TempDir dir;
    const auto saved = SaveCheckpoint(Fs(), dir.File("checkpoints"), weights.SnapshotOf(run));
    ASSERT_TRUE(saved.ok()) << saved.status();
    const auto exported =
        ExportCheckpointHf(Fs(), saved->path, StateKind::kWeights, dir.File("hf"), {.dtype = DType::kE4M3});
    ASSERT_TRUE(exported.ok()) << exported.status();
    int powers = 0, scales = 0;
    for (const auto& [name, tensor] : ReadRaw(dir.File("hf"))) {
      if (name.find("_scale_inv") == std::string::npos) continue;
      for (const float scale : Floats(tensor)) {
        int exponent = 0;
        ++scales;
        powers += std::frexp(scale, &exponent) == 0.5f ? 1 : 0;
      }
    }
    EXPECT_EQ(powers == scales, power_of_two);
  }
}

TEST(HfFp8ImportTest, WhatIsWrongWithScalesIsNamed) {
  const config::ModelConfig model = BlockyConfig().model();
  Weights weights(model), read(model);
  weights.Fill();
  const TempDir dir;
  Export(dir.File("hf"), model, weights, {.dtype = DType::kE4M3});
  const RawTensors good = ReadRaw(dir.File("hf"));
  const std::string name = "model.layers.0.self_attn.o_proj.weight", scales = name + "_scale_inv";
  const auto import = [&](const RawTensors& tensors) {
    WriteRaw(dir.File("hf/model.safetensors"), tensors);
    return ImportHf(Fs(), dir.File("hf"), model, read.views, {}).status();
  };
  EXPECT_TRUE(import(good).ok());
  RawTensors bad = good;
  bad.erase(scales);
  EXPECT_THAT(std::string(import(bad).message()), HasSubstr(scales + " is missing, and " + name + " is F8_E4M3"));
  bad = good;
  std::swap(bad[scales].shape[0], bad[scales].shape[1]);
  bad[scales].shape.push_back(1);
  EXPECT_THAT(std::string(import(bad).message()), HasSubstr(scales + " is F32 ["));
  bad = good;
  bad[scales].dtype = "I32";
  EXPECT_THAT(std::string(import(bad).message()), HasSubstr(scales + " is I32 ["));
  bad = good;
  bad["lm_head.weight_scale_inv"] = good.at(scales);
  EXPECT_THAT(std::string(import(bad).message()), HasSubstr("lm_head.weight_scale_inv is not known"));
  bad = good;
  bad[name].bytes[5] = 0x7f;  // NaN
  EXPECT_THAT(std::string(import(bad).message()), HasSubstr(name + " holds a number that is not finite"));
  WriteRaw(dir.File("hf/model.safetensors"), good);
  auto json = nlohmann::json::parse(*ReadFile(Fs(), dir.File("hf/config.json")));
  const auto with = [&](const nlohmann::json& quantization) {
    json["quantization_config"] = quantization;
    CHECK(WriteFile(Fs(), dir.File("hf/config.json"), json.dump()).ok());
    return ImportHf(Fs(), dir.File("hf"), model, read.views, {}).status();
  };
  const nlohmann::json said = json["quantization_config"];
  EXPECT_TRUE(with(said).ok());
  for (const auto& [field, value] :
       std::map<std::string, nlohmann::json>{{"weight_block_size", {64, 128}}, {"fmt", "e5m2"}, {"quant_method", 8}}) {
    nlohmann::json other = said;
    other[field] = value;
    EXPECT_EQ(with(other).code(), absl::StatusCode::kDataLoss) << field;
  }
  EXPECT_THAT(std::string(with(nullptr).message()), HasSubstr("quantization_config"));
}

}  // namespace
}  // namespace shoestring
