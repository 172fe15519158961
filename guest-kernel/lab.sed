# What the lab's kernel has that its configuration cannot say, in arch/x86/kvm/svm/svm.c.
#
# QEMU's VMRUN forgets that the instruction after `sti` is not interrupted, if something of the machine's own ended the guest's run
# between the two (tests/lab/README.md, "Pitfalls"). An idle kernel's `sti; hlt` is then interrupted before it halts, and sleeps
# although there is work. KVM waits for an NMI's moment by a single step, which QEMU does right: so does it for an interrupt's.
/^static void svm_enable_irq_window(/i\
static void svm_enable_nmi_window(struct kvm_vcpu *vcpu);\

/^static void svm_enable_irq_window(/,/^}/{
/to_svm(vcpu);$/a\
\
	if (svm->vmcb->control.int_state & SVM_INTERRUPT_SHADOW_MASK) {\
		svm_enable_nmi_window(vcpu);\
		return;\
	}
}
