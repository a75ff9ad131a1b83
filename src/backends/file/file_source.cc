#include "backends/file/file_source.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "connector/source_id.h"
#include "core/log.h"
#include "core/pause.h"

namespace relay::file {

using std::chrono::milliseconds;

namespace {

constexpr milliseconds kLook{20};            // how often a file is looked at for more
constexpr milliseconds kBetweenWrites{100};  // of the position

}  // namespace

FileSource::FileSource(SourceOptions options, LineRules rules, FieldMapping mapping)
    : options_(std::move(options)),
      rules_(std::move(rules)),
      mapping_(std::move(mapping)),
      position_file_(options_.position_file),
      shape_(std::make_shared<const TableShape>(TableShape{options_.path, {}})) {}

FileSource::~FileSource() {
  close();
}

Result<void> FileSource::open(std::stop_token) {
  close();
  auto known = position_file_.read();
  if (!known) return fail(known.error());
  const bool begun = *known && (*known)->inode != 0;
  auto way = way_on(options_.path, known->value_or(FilePosition{}));
  if (!way) return fail(way.error());
  if (begun && way->lost) {
    log::warn("file_lost", options_.pipeline,
              "the file that was read last is not beside {} any more: what was not read of it is "
              "left out, and reading begins at the start of the new one",
              options_.path);
  }
  if (way->files.empty() && !options_.follow) {
    return fail(ErrorClass::misconfigured, "no_file",
                fmt::format("there is no file {}", options_.path), "correct path");
  }
  coming_.assign(way->files.begin(), way->files.end());
  // That the position can be kept is seen before anything is read.
  const MutexLock lock(mutex_);
  written_ = settled_ = *known;
  return begun ? Result<void>() : position_file_.write({});
}

/// Goes on to the next file, if there is one. True: there is.
Result<bool> FileSource::enter_next() {
  if (coming_.empty()) {
    auto way = way_on(options_.path, current_ ? current_->start : FilePosition{});
    if (!way) return fail(way.error());
    // The first of these is the one that has been read.
    const std::size_t done = current_ && !way->lost ? 1 : 0;
    for (std::size_t i = done; i < way->files.size(); ++i) {
      coming_.push_back(std::move(way->files[i]));
    }
  }
  if (coming_.empty()) return false;
  const FoundFile file = std::move(coming_.front());
  coming_.pop_front();
  if (auto begun = begin(file); !begun) return fail(begun.error());
  return true;
}

Result<void> FileSource::begin(const FoundFile& file) {
  auto next = std::make_unique<Current>();
  next->file = Descriptor(::open(file.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  struct stat status {};
  if (!next->file || ::fstat(next->file.get(), &status) != 0) {
    const int error = errno;
    return fail(error == EACCES ? ErrorClass::misconfigured : ErrorClass::transient, "cannot_open",
                fmt::format("{} cannot be opened: {}", file.path, std::strerror(error)),
                "correct path, or let the relay's user read the file");
  }
  next->start = {status.st_dev, status.st_ino, file.start.offset};
  // Another file has taken its name meanwhile, or it was cut: that one from its beginning.
  if (status.st_ino != file.start.inode || status.st_size < next->start.offset) {
    next->start.offset = 0;
  }
  next->id_prefix =
      fmt::format("{}{}:{}", rules_.id_scope, id_part(options_.path), next->start.inode);
  ::lseek(next->file.get(), next->start.offset, SEEK_SET);
  next->lines = std::make_unique<LineReader>(next->file.get(), next->start.offset,
                                             static_cast<std::size_t>(rules_.max_record_bytes));
  current_ = std::move(next);
  return {};
}

/// Another file is at the path now, or the files behind this one are known already.
bool FileSource::was_replaced() const {
  if (!coming_.empty()) return true;
  struct stat status {};
  return ::stat(options_.path.c_str(), &status) == 0 &&
         (status.st_ino != current_->start.inode || status.st_dev != current_->start.device);
}

/// Reads more of the current file. False: there is nothing more now.
Result<bool> FileSource::read_more() {
  // In this order: what was written before the file was replaced is read for certain.
  const bool replaced = was_replaced();
  struct stat status {};
  if (::fstat(current_->file.get(), &status) == 0 && status.st_size < current_->lines->offset()) {
    log::warn("file_cut", options_.pipeline, "{} was cut: reading begins at its start again",
              options_.path);
    if (auto begun = begin({options_.path, {status.st_dev, status.st_ino, 0}}); !begun) {
      return fail(begun.error());
    }
  }
  const auto got = current_->lines->read_more();
  if (!got) return fail(got.error().in_context(options_.path));
  if (*got > 0) return true;
  current_->ended = replaced || !options_.follow;
  return false;
}

Result<RecordBatch> FileSource::read(const ReadLimits& limits, Deadline deadline,
                                     std::stop_token stop) {
  RecordBatch batch;
  while (batch.records.size() < limits.records && batch.arena.size() < limits.bytes) {
    if (!current_ || (current_->ended && options_.follow)) {
      const auto entered = enter_next();
      if (!entered && batch.empty()) return fail(entered.error());
      if (entered && *entered) continue;
    } else if (const auto line = current_->lines->next()) {
      add(batch, *line);
      continue;
    } else if (!current_->ended) {
      const auto more = read_more();
      if (!more && batch.empty()) return fail(more.error());
      if (more && *more) continue;
      if (const auto rest = current_->ended ? current_->lines->rest() : std::nullopt) {
        add(batch, *rest);
      }
      if (current_->ended) continue;
    }
    if (!batch.empty() || deadline.passed() || stop.stop_requested()) break;
    pause(deadline.earlier(Deadline::after(kLook)), stop);
  }
  return batch;
}

void FileSource::add(RecordBatch& batch, const Line& line) {
  if (!line.too_long && is_blank(line.text)) return;
  const FilePosition end{current_->start.device, current_->start.inode, line.next};
  const auto made_up_id = [this, &line] {
    return fmt::format("{}:{}:{:08x}", current_->id_prefix, line.offset, digest(line.text));
  };
  Record record = to_record(line, made_up_id, rules_, mapping_, batch.arena);
  {
    const MutexLock lock(mutex_);
    record.id = unsettled_.add(end);
  }
  batch.add(std::move(record), shape_);
}

Result<void> FileSource::acknowledge(const Position& settled, std::span<const DeadLetter>) {
  const MutexLock lock(mutex_);
  const bool again = unsettled_.count_up_to(settled.id) == 0;
  while (const auto end = unsettled_.take(settled.id)) settled_ = *end;
  if (!again && SteadyClock::now() < write_after_) return {};
  return write_position();
}

Result<void> FileSource::write_position() {
  if (!settled_ || settled_ == written_) return {};
  write_after_ = SteadyClock::now() + kBetweenWrites;
  auto written = position_file_.write(*settled_);
  if (written) written_ = settled_;
  return written;
}

std::optional<std::int64_t> FileSource::lag() {
  // Bytes are no records: they are known where all lines were read.
  struct stat status {};
  if (!current_ || ::fstat(current_->file.get(), &status) != 0) return std::nullopt;
  if (!coming_.empty() || status.st_size > current_->lines->offset()) return std::nullopt;
  const MutexLock lock(mutex_);
  return static_cast<std::int64_t>(unsettled_.size());
}

void FileSource::close() {
  current_.reset();
  coming_.clear();
  const MutexLock lock(mutex_);
  unsettled_.forget();
  if (auto written = write_position(); !written) {
    log::failure("position_not_written", options_.pipeline, written.error());
  }
}

}  // namespace relay::file
