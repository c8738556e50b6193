// Runs and their timing: CUDA graphs of unrolled launches between events.
#include <algorithm>
#include <stdexcept>
#include <utility>

#include "timing/cuda.h"

namespace mkwrap::timing {
namespace {

void enqueue(const CudaContext& context, const CudaLaunch& launch) {
  if (std::find(launch.grid.begin(), launch.grid.end(), 0u) != launch.grid.end()) return;
  std::vector<void*> parameters;
  parameters.reserve(launch.args.size());
  for (const std::uint64_t& value : launch.args)
    parameters.push_back(const_cast<std::uint64_t*>(&value));
  const Driver& driver = context.driver();
  driver.check(driver.launch(launch.function->handle(), launch.grid[0], launch.grid[1],
                             launch.grid[2], launch.threads, 1, 1, launch.shared_bytes,
                             context.stream(), parameters.data(), nullptr),
               "cuLaunchKernel");
}

void enqueue(const CudaContext& context, const CudaFill& fill) {
  if (fill.bytes == 0) return;
  context.driver().check(
      context.driver().fill(fill.address, fill.value, fill.bytes, context.stream()),
      "cuMemsetD8Async");
}

void enqueue(const CudaContext& context, const CudaRun& steps) {
  for (const auto& step : steps) {
    if (const auto* launch = std::get_if<std::shared_ptr<CudaLaunch>>(&step)) {
      enqueue(context, **launch);
    } else {
      enqueue(context, std::get<CudaFill>(step));
    }
  }
}

class Event {
 public:
  explicit Event(const CudaContext& context) : context_(context) {
    context.driver().check(context.driver().event_create(&event_, 0), "cuEventCreate");
  }
  ~Event() { context_.driver().event_destroy(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record() const {
    context_.driver().check(context_.driver().event_record(event_, context_.stream()),
                            "cuEventRecord");
  }
  // Microseconds from `start` to this event, waiting for it.
  [[nodiscard]] double since(const Event& start) const {
    float milliseconds = 0;
    context_.driver().check(context_.driver().event_wait(event_), "cuEventSynchronize");
    context_.driver().check(context_.driver().event_elapsed(&milliseconds, start.event_, event_),
                            "cuEventElapsedTime");
    return 1000.0 * static_cast<double>(milliseconds);
  }

 private:
  const CudaContext& context_;
  EventHandle event_ = nullptr;
};

void restore(const CudaContext& context, const std::vector<CudaCopy>& copies) {
  for (const CudaCopy& copy : copies) {
    if (copy.bytes == 0) continue;
    context.driver().check(
        context.driver().copy(copy.destination, copy.source, copy.bytes, context.stream()),
        "cuMemcpyDtoDAsync");
  }
}

}  // namespace

void run(const CudaContext& context, const CudaRun& run) {
  const Current current(context);
  enqueue(context, run);
  context.driver().check(context.driver().stream_wait(context.stream()), "cuStreamSynchronize");
}

CudaReplay::CudaReplay(std::shared_ptr<CudaContext> context, std::vector<CudaRun> runs, int unroll)
    : context_(std::move(context)), runs_(std::move(runs)), unroll_(std::max(unroll, 1)) {
  if (runs_.empty()) throw std::invalid_argument("a replay needs at least one run");
  const Driver& driver = context_->driver();
  const Current current(*context_);
  driver.check(driver.capture_begin(context_->stream(), kThreadLocalCapture),
               "cuStreamBeginCapture");
  GraphHandle graph = nullptr;
  try {
    for (int k = 0; k < unroll_; ++k)
      enqueue(*context_, runs_[static_cast<std::size_t>(k) % runs_.size()]);
  } catch (const DriverError&) {
    if (driver.capture_end(context_->stream(), &graph) == 0 && graph != nullptr)
      driver.graph_destroy(graph);
    throw;
  }
  driver.check(driver.capture_end(context_->stream(), &graph), "cuStreamEndCapture");
  const int result = driver.graph_instantiate(&executable_, graph, 0);
  driver.graph_destroy(graph);
  driver.check(result, "cuGraphInstantiate");
}

CudaReplay::~CudaReplay() {
  const Driver& driver = context_->driver();
  if (executable_ == nullptr || driver.context_push(context_->handle()) != 0) return;
  driver.graph_exec_destroy(executable_);
  ContextHandle popped = nullptr;
  driver.context_pop(&popped);
}

void CudaReplay::launch() const {
  context_->driver().check(context_->driver().graph_launch(executable_, context_->stream()),
                           "cuGraphLaunch");
}

std::vector<std::vector<double>> time_cuda(const CudaContext& context,
                                           const std::vector<const CudaReplay*>& replays,
                                           int rounds, const std::vector<CudaCopy>& copies) {
  const Current current(context);
  const Event start(context);
  const Event stop(context);
  const auto count = static_cast<std::size_t>(std::max(rounds, 0));
  std::vector<std::vector<double>> samples(replays.size(), std::vector<double>(count));
  for (std::size_t round = 0; round < count; ++round) {
    for (std::size_t k = 0; k < replays.size(); ++k) {
      replays[k]->launch();
      restore(context, copies);
      start.record();
      replays[k]->launch();
      stop.record();
      samples[k][round] = stop.since(start) / replays[k]->unroll();
    }
  }
  return samples;
}

}  // namespace mkwrap::timing
