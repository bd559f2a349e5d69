// Tests of the opening of the CUDA module: what is missing is said in one line, and nothing wrong is ever used.
#include "kernels/cuda_module.h"

#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/base/temp_dir.h"

namespace shoestring {
namespace {

using testing::HasSubstr;
using testing::Not;

absl::Status Refusal(const std::string& module) {
  return CudaModule::Open({.module = module, .directories = {}}).status();
}

TEST(CudaModuleTest, AnAbsentFileIsNotFound) {
  const absl::Status status = Refusal("absent/module.so");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("absent/module.so: the CUDA module cannot be read"));
}

// This program lies in a folder of its own, without a module.
TEST(CudaModuleTest, WithoutAPathItLiesBesideTheProgram) {
  const absl::Status status = Refusal("");
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("there is no CUDA module; build it"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("layout.device=CPU"));
}

TEST(CudaModuleTest, AFileThatIsNoLibraryIsRefused) {
  const TempDir dir;
  std::ofstream(dir.File("module.so")) << "no library";
  const absl::Status status = Refusal(dir.File("module.so"));
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("cannot be opened"));
}

TEST(CudaModuleTest, ALibraryThatIsNoModuleIsRefused) {
  const absl::Status status = Refusal(FAKE_MODULE_NOTHING);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("is no CUDA module of shoestring"));
}

TEST(CudaModuleTest, AModuleFromOtherInterfacesIsRefused) {
  const absl::Status status = Refusal(FAKE_MODULE_OTHER_ABI);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("was built from other interfaces (0123456789abcdef, this program has "));
}

TEST(CudaModuleTest, AMissingLibraryIsNamedWithTheRemedy) {
  const absl::Status status = Refusal(FAKE_MODULE_NEEDS_ABSENT);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("libabsent_from_everywhere.so"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("SHOESTRING_CUDA_LIBRARY_PATH"));
  EXPECT_THAT(std::string(status.message()), Not(HasSubstr("\n")));
}

TEST(CudaModuleTest, LibrariesAreFoundInTheFoldersThatAreNamed) {
  const absl::StatusOr<CudaModule> module =
      CudaModule::Open({.module = FAKE_MODULE_NEEDS_NCCL, .directories = {"/nowhere", FAKE_NCCL_FOLDER}});
  ASSERT_TRUE(module.ok()) << module.status();
  auto* const answer = reinterpret_cast<int (*)()>(module->Find("fake_module_answer"));
  ASSERT_NE(answer, nullptr);
  EXPECT_EQ(answer(), 42);
  EXPECT_EQ(module->Find("no_such_function"), nullptr);
  EXPECT_EQ(module->MakeBackend({}).status().code(), absl::StatusCode::kFailedPrecondition);  // it has no factory
}

TEST(CudaModuleTest, ABackendComputesWithCodeOfTheProgram) {
  const absl::StatusOr<CudaModule> module = CudaModule::Open({.module = FAKE_MODULE_WORKING, .directories = {}});
  ASSERT_TRUE(module.ok()) << module.status();
  const absl::StatusOr<std::unique_ptr<Backend>> backend = module->MakeBackend({});
  ASSERT_TRUE(backend.ok()) << backend.status();
  const std::unique_ptr<Stream> stream = (*backend)->MakeStream();
  float x[] = {1, 2}, y[] = {10, 20};
  const auto view = [](float* data) { return View(reinterpret_cast<std::byte*>(data), DType::kF32, 1, 2); };
  (*backend)->Add(*stream, view(x), view(y), view(y));
  EXPECT_EQ(y[1], 22);
}

TEST(CudaModuleTest, WhatAFactorySaysComesThrough) {
  const absl::StatusOr<CudaModule> module = CudaModule::Open({.module = FAKE_MODULE_WORKING, .directories = {}});
  ASSERT_TRUE(module.ok()) << module.status();
  EXPECT_EQ(module->MakeBackend({.device = 1}).status(), absl::UnavailableError("CUDA: not this one; take another"));
  EXPECT_EQ(module->MakeBackend({.device = 2}).status(),
            absl::ResourceExhaustedError("CUDA: not this one; take another"));
}

#ifdef SHOESTRING_CUDA_MODULE
// All its symbols are found: in this program, which links what `shoestring` links of kernels/, and in CUDA's libraries.
TEST(CudaModuleTest, TheModuleOpensAndSaysWhetherThereIsAGpu) {
  const absl::StatusOr<CudaModule> module = CudaModule::Open({.module = SHOESTRING_CUDA_MODULE, .directories = {}});
  ASSERT_TRUE(module.ok()) << module.status();
  const absl::Status status = module->MakeBackend({}).status();
  if (status.ok()) {
    EXPECT_EQ(module->MakeBackend({.device = 1000}).status().code(), absl::StatusCode::kUnavailable);
    return;
  }
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), testing::ContainsRegex("CUDA: .*(NVIDIA|device)"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("or set layout.device=CPU"));
  EXPECT_THAT(std::string(status.message()), Not(HasSubstr("\n")));
}
#endif

}  // namespace
}  // namespace shoestring
