# stockade's build. `make demo` and `make test` do all set-up by themselves; README.md tells the rest.

PREFIX  ?= /usr/local
DESTDIR ?=

TRIPLE   := x86_64-unknown-linux-gnu
BUILT    := target/$(TRIPLE)/release
BINARIES := stockade stockade-vmm stockade-agent containerd-shim-stockade-v2
GUEST    := target/guest
SHARE    = $(DESTDIR)$(PREFIX)/share

.PHONY: all binaries kernel lab-kernel kernel-reproducible initramfs setup demo test bench lab fuzz install dist clean

all: binaries kernel initramfs

# `sudo make install` may have no cargo in its path: what has been built is taken then.
binaries:
	@if command -v cargo > /dev/null || [ ! -x target/release/stockade ]; then \
	    echo cargo build --release --locked --workspace; cargo build --release --locked --workspace; \
	fi
	@mkdir -p target/release
	@for binary in $(BINARIES); do ln -f $(BUILT)/$$binary target/release/$$binary; done

kernel:
	guest-kernel/build.sh

# The lab's; `make test` and `make demo` build it where there is no KVM for them.
lab-kernel:
	guest-kernel/build.sh lab

# Builds the kernel twice in different directories, without the cache, and compares.
kernel-reproducible:
	guest-kernel/build.sh --reproducible

initramfs: binaries
	@mkdir -p $(GUEST)
	$(BUILT)/stockade-rootfs-builder --agent target/release/stockade-agent --output $(GUEST)/initramfs

setup:
	@tests/setup/install

# A Debian image in a microVM, from debootstrap to `stockade run`.
demo: setup all
	@tests/demo/run

# Unit and property tests here, end-to-end tests on hardware KVM or in the lab.
test: setup all dist
	@tests/run

bench: setup all lab-kernel
	@tests/bench/run

# make lab CMD='uname -a'
lab: setup all lab-kernel
	@tests/lab/run -- sh -c '$(CMD)'

# make fuzz TARGET=blk SECONDS=60
TARGET  ?= all
SECONDS ?= 60
fuzz: setup
	@fuzz/run $(TARGET) $(SECONDS)

install: all
	install -D -m 755 target/release/stockade $(DESTDIR)$(PREFIX)/bin/stockade
	install -D -m 755 target/release/containerd-shim-stockade-v2 $(DESTDIR)$(PREFIX)/bin/containerd-shim-stockade-v2
	install -D -m 755 target/release/stockade-vmm $(DESTDIR)$(PREFIX)/libexec/stockade/stockade-vmm
	install -D -m 644 $(GUEST)/vmlinux $(SHARE)/stockade/vmlinux
	install -D -m 644 $(GUEST)/initramfs $(SHARE)/stockade/initramfs
	target/release/stockade man --output $(SHARE)/man/man1
	@mkdir -p $(addprefix $(SHARE)/,bash-completion/completions zsh/site-functions fish/vendor_completions.d)
	target/release/stockade completion bash > $(SHARE)/bash-completion/completions/stockade
	target/release/stockade completion zsh > $(SHARE)/zsh/site-functions/_stockade
	target/release/stockade completion fish > $(SHARE)/fish/vendor_completions.d/stockade.fish
	@# Without one every VM boots, which is no failure of the installation.
	@[ -n "$(DESTDIR)" ] || $(PREFIX)/bin/stockade template build || echo "no template was made: VMs boot (\`stockade check\` tells more)"

# What is installed, below /usr/local, as one file: for the nodes of a cluster.
dist: all
	@rm -rf target/dist
	$(MAKE) --no-print-directory install DESTDIR=target/dist/root PREFIX=/usr/local > target/dist.log 2>&1 || { cat target/dist.log; false; }
	tar --create --gzip --file target/dist/stockade.tar.gz --owner 0 --group 0 --mode u=rwX,go=rX --sort name --directory target/dist/root usr
	@rm -rf target/dist/root target/dist.log

clean:
	cargo clean
