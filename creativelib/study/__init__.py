"""The rating study of sections 7.3 and 7.4: what people say of blinded images, kept and analysed."""
