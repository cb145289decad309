"""The audit log: who decided what, when and from which inputs, in a chain that shows tampering."""
