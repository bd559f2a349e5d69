// Opening the CPU or the CUDA module.
#include "launch/run_backend.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/clock.h"
#include "base/status_macros.h"
#include "kernels/cpu/cpu_backend.h"

namespace shoestring {
namespace {

namespace fs = std::filesystem;

std::string Environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

void AddIfFolder(const fs::path& path, std::vector<std::string>& folders) {
  std::error_code ignored;
  if (fs::is_directory(path, ignored)) folders.push_back(path.string());
}

std::vector<fs::path> Children(const fs::path& path) {
  std::vector<fs::path> children;
  std::error_code error;
  for (fs::directory_iterator entry(path, error), end; !error && entry != end; entry.increment(error)) {
    children.push_back(entry->path());
  }
  std::sort(children.begin(), children.end());
  return children;
}

// A folder of libraries, a toolkit, or a folder of Python packages.
void AddPlaces(const std::string& folder, std::vector<std::string>& folders) {
  if (folder.empty()) return;
  const fs::path path(folder);
  for (const fs::path& each : {path, path / "lib64", path / "lib"}) AddIfFolder(each, folders);
  for (const fs::path& package : Children(path / "nvidia")) AddIfFolder(package / "lib", folders);
}

}  // namespace

CudaPlaces CudaPlacesOfEnvironment() {
  CudaPlaces places;
  places.module = Environment("SHOESTRING_CUDA_MODULE");
  for (const absl::string_view folder : absl::StrSplit(Environment("SHOESTRING_CUDA_LIBRARY_PATH"), ':')) {
    AddPlaces(std::string(folder), places.directories);
  }
  AddPlaces(Environment("CUDA_HOME"), places.directories);
  if (const std::string python = Environment("VIRTUAL_ENV"); !python.empty()) {
    for (const fs::path& version : Children(fs::path(python) / "lib")) {
      AddPlaces((version / "site-packages").string(), places.directories);
    }
  }
  return places;
}

absl::StatusOr<RunBackend> OpenRunBackend(const config::RunConfig& config, Isa isa, int threads, int rank) {
  RunBackend run;
  if (config.layout().device() != config::LayoutConfig::CUDA) {
    run.backend = MakeCpuBackend({.threads = threads, .isa = isa});
    run.instruction_set = std::string(IsaName(isa));
    return run;
  }
  constexpr char kWhere[] = "layout.device: CUDA";
  absl::StatusOr<CudaModule> module = CudaModule::Open(CudaPlacesOfEnvironment());
  if (!module.ok()) return WithContext(module.status(), kWhere);
  absl::StatusOr<std::unique_ptr<Backend>> backend = module->MakeBackend({.device = rank, .shared = true});
  if (!backend.ok()) return WithContext(backend.status(), kWhere);
  run.backend = *std::move(backend);
  run.instruction_set = "sm_90a";
  return run;
}

double MeasureDevicePeak(Backend& backend, int64_t side) {
  constexpr int kRounds = 5, kProducts = 4;
  const int64_t bytes = side * side * 2;
  const std::unique_ptr<Memory> memory = backend.Allocate(3 * bytes);
  if (memory == nullptr) return 0;
  const auto matrix = [&](int64_t i) { return View(memory->data() + i * bytes, DType::kBF16, side, side); };
  const std::unique_ptr<Stream> stream = backend.MakeStream();
  // Numbers of many sizes and both signs: a processor that multiplies zeros draws less power and runs faster.
  std::vector<uint16_t> values(side * side);
  uint32_t state = 1;
  for (uint16_t& value : values) {
    state = state * 1664525u + 1013904223u;
    value = static_cast<uint16_t>((state >> 16 & 0x83ffu) | 0x3c00u);
  }
  for (int64_t i = 0; i < 2; ++i) backend.CopyFromHost(*stream, values.data(), matrix(i));
  double best = 0;
  for (int round = 0; round < kRounds; ++round) {
    backend.Synchronize(*stream);
    const double start = RealClock().MonotonicSeconds();
    for (int i = 0; i < kProducts; ++i) backend.Gemm(*stream, GemmLayout::kNT, matrix(0), matrix(1), matrix(2));
    backend.Synchronize(*stream);
    const double seconds = RealClock().MonotonicSeconds() - start;
    best = std::max(best, 2e-9 * static_cast<double>(side * side * side) * kProducts / seconds);
  }
  backend.ResetWork();
  return best;
}

}  // namespace shoestring
