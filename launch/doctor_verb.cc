// The verb `doctor`: what this machine and this build can do, measured.
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/clock.h"
#include "base/file_system.h"
#include "base/status_macros.h"
#include "kernels/cpu/cpu_features.h"
#include "kernels/cpu/gemm_peak.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/cuda_module.h"
#include "launch/exit_codes.h"
#include "launch/run_backend.h"
#include "launch/verbs.h"

namespace shoestring {
namespace {

// The value of a line "Name:   123 kB" of a file of the system; empty if there is none.
std::string SystemField(const char* file, absl::string_view name) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);) {
    if (!absl::StartsWith(line, name)) continue;
    const size_t colon = line.find(':');
    const size_t begin = colon == std::string::npos ? colon : line.find_first_not_of(" \t", colon + 1);
    return begin == std::string::npos ? "" : line.substr(begin);
  }
  return "";
}

void PrintProcessor() {
  std::string levels;
  for (const Isa isa : SupportedIsas()) absl::StrAppend(&levels, levels.empty() ? "" : ", ", IsaName(isa));
  std::printf("processor   %s, %u threads\n", SystemField("/proc/cpuinfo", "model name").c_str(),
              std::thread::hardware_concurrency());
  std::printf("code        %s (of %s)\n", std::string(IsaName(DefaultIsa())).c_str(), levels.c_str());
  std::printf("memory      %s in all, %s available\n", SystemField("/proc/meminfo", "MemTotal").c_str(),
              SystemField("/proc/meminfo", "MemAvailable").c_str());
}

void PrintGemmPeak() {
  ThreadPool pool(ThreadsOrCores(0));
  CpuGemm gemm(&pool, DefaultIsa());
  const GemmPeak peak = MeasureGemmPeak(gemm);
  std::printf("products    %.1f GFLOP/s FP32, %.1f GFLOP/s BF16, on %d threads\n", peak.f32_gflops, peak.bf16_gflops,
              pool.threads());
}

void PrintLibraries(const std::vector<CudaLibrary>& libraries) {
  for (const CudaLibrary& library : libraries) {
    const char* missing = library.needed ? "missing; install the CUDA 13 libraries (a toolkit, or the Python packages "
                                           "nvidia-*), and name their folders in SHOESTRING_CUDA_LIBRARY_PATH"
                                         : "missing; only cuDNN may ask for it";
    std::printf("library     %-18s %s\n", library.name.c_str(), library.path.empty() ? missing : library.path.c_str());
  }
}

void PrintMachine(const std::string& release, const CudaMachine& machine) {
  if (release.empty() && machine.driver == 0) {
    std::printf("driver      none; install NVIDIA's, release 580 or later\n");
  } else {
    std::string serves = "whether it serves CUDA 13 is unknown";
    if (machine.driver > 0)
      serves = absl::StrCat("serves CUDA ", machine.driver / 1000, ".", machine.driver % 1000 / 10);
    std::printf("driver      %s, %s\n", release.empty() ? "release unknown" : release.c_str(), serves.c_str());
  }
  for (size_t i = 0; i < machine.devices.size(); ++i) {
    const CudaMachine::Device& device = machine.devices[i];
    std::printf("device %-4zu %s, %.1f GiB, compute capability %d.%d\n", i, device.name.c_str(),
                static_cast<double>(device.memory_bytes) / (1 << 30), device.major, device.minor);
  }
}

// Whether the module can be used is one line; what it needs are more, on a machine that has any of that.
void PrintDevices() {
  const CudaPlaces places = CudaPlacesOfEnvironment();
  const absl::StatusOr<CudaModule> module = CudaModule::Open(places);
  const absl::Status usable = module.ok() ? module->MakeBackend({}).status() : module.status();
  std::printf("devices     CPU%s\n", usable.ok() ? ", CUDA" : absl::StrCat("; no CUDA: ", usable.message()).c_str());
  const std::vector<CudaLibrary> libraries = CudaModule::FindLibraries(places);
  const std::string release = SystemField("/proc/driver/nvidia/version", "NVRM version");
  const auto found = [](const CudaLibrary& library) { return !library.path.empty(); };
  if (!module.ok() && release.empty() && std::none_of(libraries.begin(), libraries.end(), found)) return;
  PrintMachine(release, module.ok() ? module->Describe() : CudaMachine());
  PrintLibraries(libraries);
}

absl::Status PrintDiskSpeed(const std::string& directory) {
  constexpr size_t kBlockBytes = size_t{4} << 20;
  constexpr int kBlocks = 16;
  FileSystem& fs = PosixFileSystem();
  const std::string path = JoinPath(directory, ".shoestring_doctor");
  const std::string block(kBlockBytes, '\x5a');
  ASSIGN_OR_RETURN(const std::unique_ptr<WritableFile> file, fs.Create(path));
  const double start = RealClock().MonotonicSeconds();
  absl::Status status;
  for (int i = 0; i < kBlocks && status.ok(); ++i) status = file->Append(block);
  if (status.ok()) status = file->Sync();
  const double seconds = RealClock().MonotonicSeconds() - start;
  if (status.ok()) status = file->Close();
  const absl::Status removed = fs.Remove(path);
  RETURN_IF_ERROR(status);
  RETURN_IF_ERROR(removed);
  std::printf("disk        %.0f MB/s written and synced in %s\n", kBlocks * kBlockBytes / 1e6 / seconds,
              directory.c_str());
  return absl::OkStatus();
}

int Run(const Values& values) {
  PrintProcessor();
  PrintGemmPeak();
  PrintDevices();
  const absl::Status disk = PrintDiskSpeed(values["directory"].as<std::string>());
  return disk.ok() ? static_cast<int>(ExitCode::kDone) : Fail(Area::kRun, disk);
}

void Declare(po::options_description& flags) {
  flags.add_options()("directory", po::value<std::string>()->default_value(".")->value_name("DIR"),
                      "where runs are to be written: its disk is measured with 64 MiB");
}

}  // namespace

Verb DoctorVerb() {
  return {"doctor",
          "say what this machine can do",
          "[--directory DIR]",
          "Example:\n  shoestring doctor --directory runs",
          Declare,
          "",
          Run};
}

}  // namespace shoestring
