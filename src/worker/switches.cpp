// libtorch's switches that tch does not have: those for repeatable arithmetic on a GPU, and the one for oneDNN, whose kernels compute convolutions on a CPU. Both halves
// of libtorch have all of them.

#include <ATen/Context.h>
#include <ATen/Version.h>

#include <cstring>
#include <string>

extern "C" {

// Deterministic cuDNN kernels, none chosen by their speed of the moment, no TF32. 0 if libtorch refuses.
int atflow_make_repeatable() noexcept {
  try {
    auto& context = at::globalContext();
    context.setDeterministicCuDNN(true);
    context.setBenchmarkCuDNN(false);
    context.setAllowTF32CuDNN(false);
    context.setAllowTF32CuBLAS(false);
    return 1;
  } catch (...) {
    return 0;
  }
}

// The switches as they are, a bit each: deterministic cuDNN, benchmarking, TF32 in cuDNN, TF32 in cuBLAS. -1 if libtorch refuses.
int atflow_switches() noexcept {
  try {
    auto& context = at::globalContext();
    return int(context.deterministicCuDNN()) | int(context.benchmarkCuDNN()) << 1 |
        int(context.allowTF32CuDNN()) << 2 | int(context.allowTF32CuBLAS()) << 3;
  } catch (...) {
    return -1;
  }
}

// Lets convolutions use oneDNN's kernels or not. 0 if libtorch refuses.
int atflow_use_onednn(int use) noexcept {
  try {
    at::globalContext().setUserEnabledMkldnn(use != 0);
    return 1;
  } catch (...) {
    return 0;
  }
}

// A text about libtorch's arithmetic on a CPU: 0 for the kernels of ATen that were chosen, 1 for the version of oneDNN, 2 for that of MKL. Written to
// `out` with a null at its end; the text is empty if libtorch refuses or there is no room.
void atflow_arithmetic(int which, char* out, size_t room) noexcept {
  try {
    const std::string text = which == 0 ? at::get_cpu_capability() : which == 1 ? at::get_mkldnn_version() : at::get_mkl_version();
    const size_t size = text.size() < room ? text.size() : 0;
    std::memcpy(out, text.data(), size);
    out[size] = 0;
  } catch (...) {
    out[0] = 0;
  }
}

}  // extern "C"
