// dlopen of the module and, before it, of the libraries that it needs, wherever they lie.
#include "kernels/cuda_module.h"

#include <dlfcn.h>
#include <link.h>
#include <unistd.h>

#include <climits>
#include <cstdlib>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/status_macros.h"

namespace shoestring {
namespace {

constexpr char kModuleFile[] = "libshoestring_cuda.so";

// In the order of their needs. One is opened by cuDNN itself, by name, if it needs it.
constexpr const char* kLibraries[] = {"libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13",
                                      "libnvrtc.so.13",  "libcudnn.so.9",     "libnccl.so.2"};
constexpr absl::string_view kNotNeeded = "libnvrtc.so.13";

bool IsFile(const std::string& path) { return access(path.c_str(), R_OK) == 0; }

std::string ExecutableFolder() {
  char path[PATH_MAX];
  const ssize_t length = readlink("/proc/self/exe", path, sizeof(path));
  if (length <= 0) return ".";
  const std::string file(path, static_cast<size_t>(length));
  return file.substr(0, file.rfind('/'));
}

absl::StatusOr<std::string> FindModule(const CudaPlaces& places) {
  if (!places.module.empty()) {
    if (IsFile(places.module)) return places.module;
    return absl::NotFoundError(absl::StrCat(places.module, ": the CUDA module cannot be read; name another file"));
  }
  const std::string folder = ExecutableFolder();
  for (const char* relative : {"/", "/../lib/"}) {
    std::string path = absl::StrCat(folder, relative, kModuleFile);
    if (IsFile(path)) return path;
  }
  return absl::NotFoundError(absl::StrCat(folder, "/", kModuleFile,
                                          ": there is no CUDA module; build it with 'cmake --preset cuda', which needs "
                                          "the CUDA 13 toolkit, or set layout.device=CPU"));
}

// Where an opened library lies, links followed: the file's name says its version.
std::string PlaceOf(void* handle) {
  link_map* map = nullptr;
  if (dlinfo(handle, RTLD_DI_LINKMAP, &map) != 0 || map == nullptr) return "?";
  char path[PATH_MAX];
  return realpath(map->l_name, path) != nullptr ? path : map->l_name;
}

absl::Status CannotOpen(const std::string& path) {
  const char* reason = dlerror();
  const std::string why = reason == nullptr ? "unknown reason" : reason;
  if (absl::StrContains(why, "cannot open shared object file")) {
    return absl::NotFoundError(absl::StrCat(path, ": ", why,
                                            "; install the CUDA 13 libraries (a toolkit, or the Python packages "
                                            "nvidia-*), and name their folders in SHOESTRING_CUDA_LIBRARY_PATH"));
  }
  return absl::FailedPreconditionError(absl::StrCat(path, ": cannot be opened: ", why,
                                                    "; build program and module "
                                                    "together"));
}

absl::Status CheckAbi(void* handle, const std::string& path) {
  auto* const abi = reinterpret_cast<CudaAbiFunction*>(dlsym(handle, kCudaAbiSymbol));
  if (abi == nullptr) return absl::FailedPreconditionError(absl::StrCat(path, ": is no CUDA module of shoestring"));
  if (const std::string theirs = abi(); theirs != SHOESTRING_MODULE_ABI) {
    return absl::FailedPreconditionError(absl::StrCat(path, ": was built from other interfaces (", theirs,
                                                      ", this program has ", SHOESTRING_MODULE_ABI,
                                                      "); build program and module together"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CudaModule> CudaModule::Open(const CudaPlaces& places) {
  ASSIGN_OR_RETURN(std::string path, FindModule(places));
  FindLibraries(places);  // one that is found nowhere here may still be found by the module's run path
  // The module logs too, with this program's Log: which is linked because it is called here.
  LogInfo("opening the CUDA module " + path);
  void* const handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (handle == nullptr) return CannotOpen(path);
  RETURN_IF_ERROR(CheckAbi(handle, path));
  return CudaModule(handle, std::move(path));
}

std::vector<CudaLibrary> CudaModule::FindLibraries(const CudaPlaces& places) {
  std::vector<CudaLibrary> libraries;
  for (const char* name : kLibraries) {
    void* handle = nullptr;
    for (const std::string& directory : places.directories) {
      handle = dlopen(absl::StrCat(directory, "/", name).c_str(), RTLD_NOW | RTLD_GLOBAL);
      if (handle != nullptr) break;
    }
    if (handle == nullptr) handle = dlopen(name, RTLD_NOW | RTLD_GLOBAL);
    libraries.push_back({name, handle == nullptr ? "" : PlaceOf(handle), name != kNotNeeded});
  }
  return libraries;
}

CudaMachine CudaModule::Describe() const {
  CudaMachine machine;
  if (auto* const describe = reinterpret_cast<CudaDescribeFunction*>(Find(kCudaDescribeSymbol))) describe(machine);
  return machine;
}

absl::StatusOr<std::unique_ptr<Backend>> CudaModule::MakeBackend(const CudaBackendOptions& options) const {
  auto* const make = reinterpret_cast<CudaMakeBackendFunction*>(Find(kCudaMakeBackendSymbol));
  if (make == nullptr) return absl::FailedPreconditionError(absl::StrCat(path_, ": makes no backend"));
  CudaFailure failure;
  std::unique_ptr<Backend> backend(make(options, failure));
  if (backend != nullptr) return backend;
  if (failure.kind == CudaFailure::Kind::kExhausted) return absl::ResourceExhaustedError(failure.message);
  return absl::UnavailableError(failure.message);
}

void* CudaModule::Find(const char* symbol) const { return dlsym(handle_, symbol); }

}  // namespace shoestring
